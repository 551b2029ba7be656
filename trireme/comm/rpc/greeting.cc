// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/greeting.h"

#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme {
namespace {

// Whether the client's memory can be used here; if not although the host is the same, why not.
bool can_share(const Introduction& client, std::string_view host_id, std::string& why_not) {
  if (!client.probe || client.host_id != host_id) return false;
  try {
    ArenaMemory::open(*client.probe);
    return true;
  } catch (const CommError& error) {
    why_not = error.what();
    return false;
  }
}

}  // namespace

void check_secret(std::string_view what, const std::string& address, const std::string& secret) {
  if (!secret.empty() || is_loopback(address)) return;
  throw_error<ConfigError>(
      "{} at {} needs a secret, because other hosts can reach it: give all processes of the job "
      "the same one",
      what, address);
}

std::string encode_introduction(const Introduction& introduction) {
  FieldWriter writer;
  writer.text(introduction.name)
      .text(introduction.host_id)
      .u8(introduction.probe.has_value() ? 1 : 0);
  if (introduction.probe) encode_notice(writer, *introduction.probe);
  return writer.bytes();
}

Introduction decode_introduction(std::string_view payload) {
  FieldReader reader(payload);
  Introduction introduction;
  introduction.name = reader.text();
  introduction.host_id = reader.text();
  const std::uint8_t probes = reader.u8();
  if (probes > 1) throw_error<ProtocolError>("{} memories to try", probes);
  if (probes == 1) introduction.probe = decode_notice(reader);
  reader.finish();
  return introduction;
}

void Greeting::handle(std::string_view bytes, std::string& answer) {
  decoder_.feed(bytes);
  while (const std::optional<Frame> frame = decoder_.next()) {
    if (welcomed_ || !refusal_.empty()) throw ProtocolError("a frame before it was welcome");
    if (admission_.stranger()) {
      admission_.handle(*frame, answer);
    } else {
      introduce(*frame, answer);
    }
  }
  if (welcomed_ && !decoder_.empty()) throw ProtocolError("bytes before it was welcome");
}

std::string Greeting::why_not_served() const {
  const Hello& hello = admission_.hello();
  if (hello.rank != kNoRank) {
    return fmt::format("rank {} looks for rank 0 at the port of a server", hello.rank);
  }
  if (hello.version != kRpcVersion) {
    return fmt::format(
        "the client speaks version {} of the protocol, the server version {}; start both with the "
        "same build of Trireme",
        hello.version, kRpcVersion);
  }
  return {};
}

void Greeting::introduce(const Frame& frame, std::string& answer) {
  if (frame.type != FrameType::kMember) {
    throw_error<ProtocolError>("frame of type {} out of turn", static_cast<int>(frame.type));
  }
  refusal_ = why_not_served();
  if (!refusal_.empty()) {
    answer += encode_frame(FrameType::kRefused, refusal_);
    return;
  }
  const Introduction client = decode_introduction(frame.payload);
  std::string why_not;
  const bool shares = can_share(client, host_id_, why_not);
  answer +=
      encode_frame(FrameType::kWelcome, FieldWriter().u8(shares ? 1 : 0).text(why_not).bytes());
  name_ = client.name;
  welcomed_ = true;
}

}  // namespace trireme
