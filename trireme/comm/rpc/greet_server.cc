// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The client's side of the greeting: connect, prove, introduce oneself, wait for the welcome.

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/host_identity.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/comm/rpc/arena_regions.h"
#include "trireme/comm/rpc/greeting.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme {
namespace {

// Between two attempts to connect.
constexpr std::chrono::milliseconds kRetryPause{20};

// The connection ended, or nothing came in time.
struct NoFrame {
  std::string why;
};

class Visit {
 public:
  Visit(const RpcClientOptions& options, FileDescriptor fd, const Deadline& deadline)
      : options_(options), deadline_(deadline), fd_(std::move(fd)) {}

  // False when whoever listens there is not, or not yet, a server of Trireme.
  bool prove_ourselves(std::string& why);
  Greeted introduce_ourselves() &&;

 private:
  Frame next_frame();
  void send(FrameType type, std::string_view payload) { outbox_ += encode_frame(type, payload); }
  std::string server() const { return endpoint_text(options_.address, options_.port); }

  const RpcClientOptions& options_;
  const Deadline deadline_;
  FileDescriptor fd_;
  FrameDecoder decoder_{kStrangerFrameLimit};
  std::string outbox_;
};

Frame Visit::next_frame() {
  for (;;) {
    if (std::optional<Frame> frame = decoder_.next()) return *std::move(frame);
    if (deadline_.expired()) throw NoFrame{"no answer"};
    pollfd ready{fd_.get(), static_cast<short>(POLLIN | (outbox_.empty() ? 0 : POLLOUT)), 0};
    poll(&ready, 1, static_cast<int>(std::min<std::int64_t>(deadline_.remaining().count(), 1000)));
    std::string bytes;
    // What the server said before it hung up is read even when it takes nothing more.
    bool closed = read_available(fd_, bytes) == IoStatus::kClosed;
    closed |= write_available(fd_, outbox_) == IoStatus::kClosed;
    decoder_.feed(bytes);
    if (closed && bytes.empty()) throw NoFrame{"the connection was closed"};
  }
}

bool Visit::prove_ourselves(std::string& why) {
  const std::string hello = encode_hello({kNoRank, 0, make_nonce(), kRpcVersion});
  try {
    send(FrameType::kHello, hello);
    const Frame challenge = next_frame();
    if (challenge.type != FrameType::kChallenge) throw ProtocolError("no challenge");
    const std::optional<std::string> proof =
        answer_challenge(challenge.payload, options_.secret, hello);
    if (!proof) {
      throw_error<ConfigError>(
          "the server at {} has another secret than {}: give all processes of one job the same "
          "secret, and each job ports of its own",
          server(), options_.name);
    }
    send(FrameType::kProof, *proof);
    const Frame answer = next_frame();
    if (answer.type == FrameType::kTrusted) return true;
    throw ProtocolError("no answer to our proof");
  } catch (const NoFrame& none) {
    why = none.why;
  } catch (const ProtocolError& error) {
    why = fmt::format("what listens there is not a server of a Trireme job ({})", error.what());
  }
  return false;
}

Greeted Visit::introduce_ourselves() && {
  Introduction introduction;
  introduction.name = options_.name;
  introduction.host_id = options_.host_id.empty() ? host_identity() : options_.host_id;
  if (options_.arena != nullptr) introduction.probe = options_.arena->regions()->probe();
  send(FrameType::kMember, encode_introduction(introduction));
  Frame verdict;
  try {
    verdict = next_frame();
  } catch (const NoFrame& none) {
    throw PeerLostError(-1, fmt::format("the server at {} went away while {} connected to it: {}; "
                                        "see the server's log",
                                        server(), options_.name, none.why));
  }
  if (verdict.type == FrameType::kRefused) {
    throw_error<ConfigError>("the server at {} refuses {}: {}", server(), options_.name,
                             verdict.payload);
  }
  if (verdict.type != FrameType::kWelcome) throw ProtocolError("the server sent no verdict");
  FieldReader reader(verdict.payload);
  Greeted greeted;
  greeted.shares_memory = reader.u8() != 0;
  greeted.why_not = reader.text();
  reader.finish();
  if (!decoder_.empty()) throw ProtocolError("the server answers before it was asked");
  greeted.fd = std::move(fd_);
  return greeted;
}

}  // namespace

Greeted greet_server(const RpcClientOptions& options) {
  check_secret("the server", options.address, options.secret);
  const Deadline deadline = Deadline::after(options.connect_timeout);
  std::string why = "nothing listens there";
  do {
    if (std::optional<FileDescriptor> fd =
            connect_to(options.address, options.port, deadline, why)) {
      Visit visit(options, *std::move(fd), deadline);
      if (visit.prove_ourselves(why)) return std::move(visit).introduce_ourselves();
    }
    std::this_thread::sleep_for(std::min(kRetryPause, deadline.remaining()));
  } while (!deadline.expired());
  throw_error<TimeoutError>(
      "the server at {} did not answer {} within {:.1f} s ({}); does it run, and is the address "
      "right?",
      endpoint_text(options.address, options.port), options.name,
      static_cast<double>(options.connect_timeout.count()) / 1000.0, why);
}

}  // namespace trireme
