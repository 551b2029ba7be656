// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The side of every rank but 0: connect, prove, introduce oneself, wait for the verdict.

#include <poll.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme::detail {
namespace {

// Between two attempts to connect.
constexpr std::chrono::milliseconds kRetryPause{20};
// Rank 0 keeps our deadline for us, and its verdict has to travel.
constexpr std::chrono::milliseconds kVerdictTime = std::chrono::seconds(2);

// The connection ended, or nothing came in time.
struct NoFrame {
  std::string why;
};

class Visit {
 public:
  Visit(const WorldOptions& options, FileDescriptor fd, const Deadline& deadline)
      : options_(options), deadline_(deadline) {
    connection_.fd = std::move(fd);
    connection_.decoder.set_limit(kStrangerFrameLimit);
  }

  // False when whoever listens there is not, or not yet, rank 0 of a Trireme job.
  bool prove_ourselves(std::string& why);
  Meeting introduce_ourselves(Member self) &&;

 private:
  Frame next_frame(const Deadline& deadline);
  void send(FrameType type, std::string_view payload);

  const WorldOptions& options_;
  const Deadline deadline_;
  Connection connection_;
};

Frame Visit::next_frame(const Deadline& deadline) {
  for (;;) {
    if (std::optional<Frame> frame = connection_.decoder.next()) return *std::move(frame);
    if (deadline.expired()) throw NoFrame{"no answer"};
    const bool unsent = !connection_.outbox.empty();
    pollfd ready{connection_.fd.get(), static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)), 0};
    poll(&ready, 1, static_cast<int>(std::min<std::int64_t>(deadline.remaining().count(), 1000)));
    std::string bytes;
    // What rank 0 said before it hung up is read even when it takes nothing more.
    bool closed = read_available(connection_.fd, bytes) == IoStatus::kClosed;
    closed |= write_available(connection_.fd, connection_.outbox) == IoStatus::kClosed;
    connection_.decoder.feed(bytes);
    if (closed && bytes.empty()) throw NoFrame{"the connection was closed"};
  }
}

void Visit::send(FrameType type, std::string_view payload) {
  connection_.outbox += encode_frame(type, payload);
}

bool Visit::prove_ourselves(std::string& why) {
  const std::string hello = encode_hello({static_cast<std::uint32_t>(options_.rank),
                                          static_cast<std::uint32_t>(options_.size), make_nonce()});
  try {
    send(FrameType::kHello, hello);
    const Frame challenge = next_frame(deadline_);
    if (challenge.type != FrameType::kChallenge) throw ProtocolError("no challenge");
    const std::optional<std::string> proof =
        answer_challenge(challenge.payload, options_.secret, hello);
    if (!proof) {
      throw_error<ConfigError>(
          "the job that listens at {} has another secret than rank {}: give all ranks of one job "
          "the same secret, and each job a port of its own",
          endpoint_text(options_.address, options_.port), options_.rank);
    }
    send(FrameType::kProof, *proof);
    // Until then rank 0 may drop us for being slow, and we come again.
    const Frame answer = next_frame(deadline_);
    if (answer.type == FrameType::kTrusted) return true;
    throw ProtocolError("no answer to our proof");
  } catch (const NoFrame& none) {
    why = none.why;
  } catch (const ProtocolError& error) {
    why = fmt::format("what listens there is not rank 0 of a Trireme job ({})", error.what());
  }
  return false;
}

Meeting Visit::introduce_ourselves(Member self) && {
  connection_.decoder.set_limit(kMemberFrameLimit);
  self.ip = local_address(connection_.fd);
  FieldWriter writer;
  writer.u64(static_cast<std::uint64_t>(deadline_.remaining().count()));
  encode_member(writer, self);
  send(FrameType::kMember, writer.bytes());
  Frame verdict;
  try {
    verdict = next_frame(Deadline::after(deadline_.remaining() + kVerdictTime));
  } catch (const NoFrame& none) {
    throw PeerLostError(
        0, fmt::format("rank 0 at {} went away while rank {} waited for the other ranks "
                       "to join: {}; see rank 0's log",
                       endpoint_text(options_.address, options_.port), options_.rank, none.why));
  }
  if (verdict.type == FrameType::kRefused) decode_failure(verdict.payload).raise();
  if (verdict.type != FrameType::kWelcome) throw ProtocolError("rank 0 sent no verdict");

  Meeting meeting;
  FieldReader reader(verdict.payload);
  for (int rank = 0; rank < options_.size; ++rank) {
    meeting.members.push_back(decode_member(reader));
    const int said = meeting.members.back().rank;
    if (said != rank) throw_error<ProtocolError>("rank 0 lists rank {} as rank {}", said, rank);
  }
  reader.finish();
  meeting.connections.emplace(0, std::move(connection_));
  return meeting;
}

}  // namespace

Meeting meet_as_member(const WorldOptions& options, Member self) {
  const Deadline deadline = Deadline::after(options.join_timeout);
  std::string why = "nothing listens there";
  while (!deadline.expired()) {
    if (std::optional<FileDescriptor> fd =
            connect_to(options.address, options.port, deadline, why)) {
      Visit visit(options, *std::move(fd), deadline);
      if (visit.prove_ourselves(why)) return std::move(visit).introduce_ourselves(std::move(self));
    }
    std::this_thread::sleep_for(std::min(kRetryPause, deadline.remaining()));
  }
  throw_error<TimeoutError>(
      "rank 0 did not answer rank {} at {} within {:.1f} s ({}); is rank 0 running, and is the "
      "address right?",
      options.rank, endpoint_text(options.address, options.port),
      static_cast<double>(options.join_timeout.count()) / 1000.0, why);
}

}  // namespace trireme::detail
