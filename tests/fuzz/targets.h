// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What stands between a socket and the job, each as a function of arbitrary bytes: for libFuzzer
// (fuzz_main.cc) and for the mutations of tests/comm/fuzz_test.cc. A target returns, whatever the
// bytes; it throws std::logic_error when a promise is broken.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/admission.h"
#include "trireme/comm/meeting/control_plane.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme::fuzz {

inline void promise(bool kept, const char* what) {
  if (!kept) throw std::logic_error(what);
}

// Takes numbers and pieces from the front of the bytes; zeros when they are used up.
class Supply {
 public:
  explicit Supply(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  unsigned number() {
    const std::string_view byte = piece(1);
    return byte.empty() ? 0 : static_cast<unsigned char>(byte[0]);
  }
  std::string_view piece(std::size_t size) {
    const std::string_view front = rest_.substr(0, size);
    rest_.remove_prefix(front.size());
    return front;
  }
  std::string_view rest() { return piece(rest_.size()); }

 private:
  std::string_view rest_;
};

// Frames come out as they stand in the bytes, whatever the pieces; nothing comes after an error.
inline void frames(std::string_view bytes) {
  Supply supply(bytes);
  const std::size_t piece = 1 + supply.number();
  FrameDecoder decoder(kStrangerFrameLimit);
  std::string fed;
  std::string out;
  try {
    while (!supply.empty()) {
      const std::string_view next = supply.piece(piece);
      fed += next;
      decoder.feed(next);
      while (const std::optional<Frame> frame = decoder.next()) {
        promise(frame->payload.size() <= kStrangerFrameLimit, "a frame over the limit");
        out += encode_frame(frame->type, frame->payload);
      }
    }
  } catch (const ProtocolError&) {
  }
  promise(fed.starts_with(out), "a frame that was not sent");
}

// Fields read as the first bytes say never exceed what is there.
inline void fields(std::string_view bytes) {
  Supply supply(bytes);
  const std::string kinds(supply.piece(16));
  const std::string_view data = supply.rest();
  FieldReader reader(data);
  FieldWriter writer;
  try {
    for (const char kind : kinds) {
      switch (static_cast<unsigned char>(kind) % 5) {
        case 0:
          writer.u8(reader.u8());
          break;
        case 1:
          writer.u32(reader.u32());
          break;
        case 2:
          writer.u64(reader.u64());
          break;
        case 3:
          writer.text(reader.text());
          break;
        default:
          writer.raw(reader.raw(static_cast<unsigned char>(kind)));
      }
      promise(data.starts_with(writer.bytes()), "a field that was not written");
    }
    reader.finish();
    promise(writer.bytes() == data, "bytes that were not read");
  } catch (const ProtocolError&) {
  }
}

inline void hello(std::string_view bytes) {
  try {
    promise(encode_hello(decode_hello(bytes)) == bytes, "another hello than was sent");
  } catch (const ProtocolError&) {
  }
}

inline void member(std::string_view bytes) {
  FieldReader reader(bytes);
  try {
    const Member member = detail::decode_member(reader);
    FieldWriter writer;
    detail::encode_member(writer, member);
    promise(bytes.starts_with(writer.bytes()), "another member than was sent");
    promise(writer.bytes().size() + reader.remaining() == bytes.size(), "bytes that were skipped");
  } catch (const ProtocolError&) {
  }
}

inline void failure(std::string_view bytes) {
  try {
    const Failure failure = detail::decode_failure(bytes);
    promise(detail::encode_failure(failure) == bytes, "another failure than was sent");
  } catch (const ProtocolError&) {
  }
}

// A guest of the rendezvous: raw bytes, mixed with frames that only one who knows the secret can
// make. Nobody is trusted without a proof.
inline void admission(std::string_view bytes) {
  constexpr std::string_view kSecret = "a secret of this test";
  Supply supply(bytes);
  Admission admission(kSecret);
  FrameDecoder from_guest(kStrangerFrameLimit);
  FrameDecoder from_host(kStrangerFrameLimit);
  std::string hello;
  std::string nonce;
  bool proved = false;
  try {
    while (!supply.empty()) {
      switch (supply.number() % 4) {
        case 0:
          from_guest.feed(supply.piece(supply.number()));
          break;
        case 1:
          hello = encode_hello({supply.number(), supply.number(), make_nonce()});
          from_guest.feed(encode_frame(FrameType::kHello, hello));
          break;
        case 2:
          proved = !nonce.empty();
          from_guest.feed(
              encode_frame(FrameType::kProof, make_proof(Prover::kMember, kSecret, hello, nonce)));
          break;
        default:
          from_guest.feed(encode_frame(FrameType::kMember, supply.rest()));
      }
      std::string answer;
      while (const std::optional<Frame> frame = from_guest.next()) {
        admission.handle(*frame, answer);
        if (!admission.stranger()) from_guest.set_limit(kMemberFrameLimit);
      }
      promise(proved || admission.stranger(), "trust without a proof");
      from_host.feed(answer);
      while (const std::optional<Frame> frame = from_host.next()) {
        if (frame->type == FrameType::kChallenge) nonce = frame->payload.substr(0, kNonceBytes);
      }
    }
  } catch (const ProtocolError&) {
  }
  if (admission.stage() == Admission::Stage::kJoined) {
    promise(static_cast<std::uint32_t>(admission.member().rank) == admission.hello().rank,
            "a member of another rank than it proved to be");
  }
}

// Rank 0's control plane hears two members say anything, and then hang up: each has left, or the
// world has failed.
inline void control_plane(std::string_view bytes) {
  Meeting meeting;
  meeting.members.resize(3);
  for (int rank = 0; rank < 3; ++rank) {
    meeting.members[static_cast<std::size_t>(rank)].rank = rank;
  }
  meeting.last_words = std::make_unique<LastWords>();
  FileDescriptor members[2];
  for (int rank = 1; rank < 3; ++rank) {
    int ends[2];
    promise(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
            "no socket pair");
    meeting.connections[rank].fd = FileDescriptor(ends[0]);
    members[rank - 1] = FileDescriptor(ends[1]);
  }
  FailureLatch latch;
  const WaitBoard waits;
  ControlPlane plane(0, std::move(meeting), latch, waits);
  Supply supply(bytes);
  while (!supply.empty()) {
    std::string piece(supply.piece(1 + supply.number()));
    if (piece.empty()) break;
    write_available(members[static_cast<unsigned char>(piece[0]) % 2], piece);
  }
  for (FileDescriptor& fd : members) fd = FileDescriptor();
  const Deadline deadline = Deadline::after(std::chrono::seconds(10));
  const auto over = [&] { return latch.failed() || (plane.has_left(1) && plane.has_left(2)); };
  while (!over() && !deadline.expired()) latch.wait_for(std::chrono::milliseconds(1));
  promise(over(), "members that hung up are neither gone nor lost");
}

}  // namespace trireme::fuzz
