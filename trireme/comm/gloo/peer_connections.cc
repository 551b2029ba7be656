// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/gloo/peer_connections.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <list>
#include <optional>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {
namespace {

// Between two attempts to connect.
constexpr std::chrono::milliseconds kRetryPause{20};
// A failure elsewhere is noticed within this time.
constexpr std::chrono::milliseconds kSlice{50};
// Refused strangers that are logged one by one.
constexpr int kLoggedStrangers = 16;
constexpr std::string_view kTrusted = "\x06";  // ASCII: acknowledge

std::size_t hello_bytes() { return encode_hello({0, 0, std::string(kNonceBytes, '\0')}).size(); }

// A connection whose other end is not proven yet.
struct Line {
  FileDescriptor fd;
  std::string outbox;
  std::string inbox;
  std::size_t awaited = 0;  // bytes of the message that comes next

  void expect(std::size_t bytes) {
    inbox.clear();
    awaited = bytes;
  }
  bool complete() const { return inbox.size() == awaited; }
  // Moves what can be moved. False when the connection has ended.
  bool serve() {
    if (write_available(fd, outbox) == IoStatus::kClosed) return false;
    while (!complete()) {
      char chunk[256];
      const std::size_t missing = std::min(sizeof(chunk), awaited - inbox.size());
      const ssize_t n = recv(fd.get(), chunk, missing, 0);
      if (n == 0) return false;
      if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
      inbox.append(chunk, static_cast<std::size_t>(n));
    }
    return true;
  }
  pollfd interest() const {
    return {fd.get(), static_cast<short>(POLLIN | (outbox.empty() ? 0 : POLLOUT)), 0};
  }
};

int poll_time(const Deadline& deadline) {
  return static_cast<int>(std::min(deadline.remaining(), kSlice).count());
}

class Handshakes {
 public:
  Handshakes(const PeerConnections& peers, const FileDescriptor& listener,
             const FailureLatch& latch, const Deadline& deadline)
      : peers_(peers), listener_(listener), latch_(latch), deadline_(deadline) {}

  std::map<int, FileDescriptor> run() {
    for (int peer = 0; peer < peers_.rank; ++peer) connect(peer);
    while (static_cast<int>(connections_.size()) + 1 < peers_.size) accept_some();
    return std::move(connections_);
  }

 private:
  struct Guest {
    Line line;
    std::string address;
    std::string hello;
    std::string nonce;
    int rank = -1;
    bool gone = false;
    Deadline deadline = Deadline::after(kStrangerTime);
  };

  void connect(int peer);
  bool introduce(Line& line, std::string& why);
  bool converse(Line& line, std::string& why);
  void accept_some();
  void admit();
  void serve(Guest& guest);
  void hear_hello(Guest& guest);
  void hear_proof(Guest& guest);
  void refuse(Guest& guest, std::string_view why);
  [[noreturn]] void give_up(const std::vector<int>& missing, const std::string& why) const;

  const PeerConnections& peers_;
  const FileDescriptor& listener_;
  const FailureLatch& latch_;
  const Deadline deadline_;
  std::map<int, FileDescriptor> connections_;
  std::list<Guest> guests_;
  int refused_ = 0;
};

void Handshakes::connect(int peer) {
  const Endpoint& endpoint = peers_.lower[static_cast<std::size_t>(peer)];
  std::string why = "no answer";
  while (!deadline_.expired()) {
    if (auto fd = connect_to(endpoint.address, endpoint.port, deadline_, why)) {
      Line line{*std::move(fd), {}, {}, 0};
      if (introduce(line, why)) {
        connections_.emplace(peer, std::move(line.fd));
        return;
      }
    }
    latch_.wait_for(std::min(kRetryPause, deadline_.remaining()));
    latch_.throw_if_failed();
  }
  give_up({peer}, why);
}

// False when the other side is not, or not yet, the rank that should listen there.
bool Handshakes::introduce(Line& line, std::string& why) {
  const std::string hello = encode_hello({static_cast<std::uint32_t>(peers_.rank),
                                          static_cast<std::uint32_t>(peers_.size), make_nonce()});
  line.outbox = hello;
  line.expect(kNonceBytes + kProofBytes);
  if (!converse(line, why)) return false;
  std::optional<std::string> proof = answer_challenge(line.inbox, peers_.secret, hello);
  if (!proof) {
    why = "what listens there does not belong to this job";
    return false;
  }
  line.outbox = *std::move(proof);
  line.expect(kTrusted.size());
  return converse(line, why);
}

// Until the expected message is there. False when the connection ends or the time is up.
bool Handshakes::converse(Line& line, std::string& why) {
  for (;;) {
    if (!line.serve()) {
      why = "the connection was closed";
      return false;
    }
    if (line.complete() && line.outbox.empty()) return true;
    if (deadline_.expired()) return false;
    latch_.throw_if_failed();
    pollfd ready = line.interest();
    poll(&ready, 1, poll_time(deadline_));
  }
}

void Handshakes::accept_some() {
  latch_.throw_if_failed();
  if (deadline_.expired()) {
    std::vector<int> missing;
    for (int peer = 0; peer < peers_.size; ++peer) {
      if (peer != peers_.rank && !connections_.contains(peer)) missing.push_back(peer);
    }
    give_up(missing, "no connection came from there");
  }
  std::vector<pollfd> ready{{listener_.get(), POLLIN, 0}};
  for (const Guest& guest : guests_) ready.push_back(guest.line.interest());
  poll(ready.data(), ready.size(), poll_time(deadline_));
  admit();
  for (Guest& guest : guests_) serve(guest);
  guests_.remove_if([](const Guest& guest) { return guest.gone; });
}

void Handshakes::admit() {
  // Bounded, so that a flood does not keep the guests waiting.
  for (std::size_t i = 0; i < kMaxStrangers; ++i) {
    bool exhausted = false;
    std::optional<FileDescriptor> fd = accept_from(listener_, exhausted);
    if (!guests_.empty() && (exhausted || guests_.size() >= kMaxStrangers)) {
      refuse(guests_.front(), "too many strangers");
      guests_.pop_front();
    }
    if (!fd) return;
    Guest& guest = guests_.emplace_back();
    guest.address = peer_address(*fd);
    guest.line.fd = *std::move(fd);
    guest.line.expect(hello_bytes());
  }
}

void Handshakes::serve(Guest& guest) {
  const bool open = guest.line.serve();
  try {
    if (guest.line.complete() && guest.hello.empty()) {
      hear_hello(guest);
    } else if (guest.line.complete()) {
      return hear_proof(guest);
    }
  } catch (const ProtocolError& error) {
    return refuse(guest, error.what());
  }
  if (!open) return refuse(guest, "it went away before it proved that it knows the job's secret");
  if (guest.deadline.expired()) refuse(guest, "it was too slow to prove that it knows the secret");
}

void Handshakes::hear_hello(Guest& guest) {
  const Hello hello = decode_hello(guest.line.inbox);
  if (hello.size != static_cast<std::uint32_t>(peers_.size) || hello.rank >= hello.size) {
    throw_error<ProtocolError>("it says that it is rank {} of {}", hello.rank, hello.size);
  }
  guest.rank = static_cast<int>(hello.rank);
  guest.hello = guest.line.inbox;
  guest.nonce = make_nonce();
  guest.line.outbox =
      guest.nonce + make_proof(Prover::kRankZero, peers_.secret, guest.hello, guest.nonce);
  guest.line.expect(kProofBytes);
  // What there is room for leaves at once; the rest when the poll says so.
  guest.line.serve();
}

void Handshakes::hear_proof(Guest& guest) {
  if (!proof_is(guest.line.inbox,
                make_proof(Prover::kMember, peers_.secret, guest.hello, guest.nonce))) {
    throw ProtocolError("it does not know the job's secret");
  }
  if (guest.rank <= peers_.rank || connections_.contains(guest.rank)) {
    throw_error<ProtocolError>("rank {} should not connect to rank {}", guest.rank, peers_.rank);
  }
  std::string trusted(kTrusted);
  // A few bytes into an empty socket.
  write_available(guest.line.fd, trusted);
  connections_.emplace(guest.rank, std::move(guest.line.fd));
  guest.gone = true;
}

void Handshakes::refuse(Guest& guest, std::string_view why) {
  if (refused_++ < kLoggedStrangers) {
    log_warn("refused a connection from {} to the gloo engine: {}", guest.address, why);
  }
  guest.gone = true;
}

void Handshakes::give_up(const std::vector<int>& missing, const std::string& why) const {
  const std::string host =
      missing.size() == 1 ? " on " + peers_.hosts[static_cast<std::size_t>(missing[0])] : "";
  throw_error<TimeoutError>(
      "rank {} has no connection to {}{} for the gloo engine: {}; can these hosts reach one "
      "another on the network that the engine is bound to?",
      peers_.rank, detail::name_ranks(missing), host, why);
}

}  // namespace

std::string to_text(const Endpoint& endpoint) {
  return fmt::format("[{}]:{}", endpoint.address, endpoint.port);
}

Endpoint endpoint_of(const std::string& text) {
  const std::size_t end = text.rfind("]:");
  Endpoint endpoint;
  const char* last = text.data() + text.size();
  if (text.starts_with('[') && end != std::string::npos) {
    endpoint.address = text.substr(1, end - 1);
    if (std::from_chars(text.data() + end + 2, last, endpoint.port).ptr == last) return endpoint;
  }
  throw_error<ProtocolError>("'{}' is no endpoint", text);
}

std::map<int, FileDescriptor> connect_peers(const PeerConnections& peers,
                                            const FileDescriptor& listener,
                                            const FailureLatch& latch, const Deadline& deadline) {
  return Handshakes(peers, listener, latch, deadline).run();
}

}  // namespace trireme
