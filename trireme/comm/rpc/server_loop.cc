// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/server_loop.h"

#include <algorithm>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/host_identity.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme::detail {
namespace {

constexpr std::uint64_t kListener = EventSet::kAlarm + 1;
// Guests that are refused one by one; the others are counted, and their number is logged this
// often.
constexpr std::uint64_t kLoggedGuests = 16;
constexpr std::chrono::milliseconds kReportTime = std::chrono::seconds(10);
// Until a connection is accepted again when there was no descriptor left for one.
constexpr std::chrono::milliseconds kShortageTime{100};
// Without guests nothing but events needs the thread.
constexpr std::chrono::milliseconds kIdleTime = std::chrono::hours(1);
constexpr std::string_view kWho = "the server";

FileDescriptor listener_of(const RpcServerOptions& options) {
  FileDescriptor listener(options.listen_fd);
  if (listener) {
    listener = adopt_listener(std::move(listener), kWho);
    check_secret(kWho, local_address(listener), options.secret);
    return listener;
  }
  check_secret(kWho, options.address, options.secret);
  return listen_on(options.address, options.port, kWho);
}

}  // namespace

ServerLoop::ServerLoop(RpcServerOptions options)
    : options_(std::move(options)),
      host_id_(options_.host_id.empty() ? host_identity() : options_.host_id),
      listener_(listener_of(options_)),
      port_(local_port(listener_)),
      next_key_(kListener + 1),
      next_report_(Deadline::after(kReportTime)) {
  TRIREME_ASSERT(options_.on_request != nullptr, "a server has a taker of its requests");
  events_.add(listener_.get(), kListener, EPOLLIN);
  thread_ = std::thread([this] { run(); });
}

void ServerLoop::close() {
  closing_.store(true);
  events_.ring();
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

void ServerLoop::run() {
  while (!closing_.load()) {
    try {
      serve_events();
      refuse_the_slow();
    } catch (const std::exception& error) {
      // Not of one connection: those end in serve_guest() and serve_connection().
      log_error("the server at port {}: {}", port_, error.what());
    }
  }
  guests_.clear();
  while (!connections_.empty()) end(connections_.begin(), "the server was closed");
}

void ServerLoop::serve_events() {
  for (const epoll_event& event : events_.wait(time_to_wait())) {
    const std::uint64_t key = event.data.u64;
    if (key == EventSet::kAlarm) continue;
    if (key == kListener) {
      admit();
    } else if (const auto guest = guests_.find(key); guest != guests_.end()) {
      serve_guest(guest);
    } else if (const auto found = connections_.find(key); found != connections_.end()) {
      serve_connection(found, event.events);
    }
  }
  if (shortage_ && shortage_->expired()) {
    shortage_.reset();
    events_.change(listener_.get(), kListener, EPOLLIN);
  }
}

std::chrono::milliseconds ServerLoop::time_to_wait() const {
  std::chrono::milliseconds time = kIdleTime;
  if (shortage_) time = shortage_->remaining();
  // The first is the one that came first.
  if (!guests_.empty()) time = std::min(time, guests_.begin()->second.deadline.remaining());
  return time;
}

void ServerLoop::admit() {
  // Bounded, so that a flood does not keep the clients waiting.
  for (std::size_t i = 0; i < kMaxStrangers; ++i) {
    bool exhausted = false;
    std::optional<FileDescriptor> fd = accept_from(listener_, exhausted);
    if (exhausted) relieve_shortage();
    if (!fd) return;
    if (guests_.size() >= kMaxStrangers) refuse(guests_.begin(), "too many strangers");
    const std::uint64_t key = next_key_++;
    Guest& guest = guests_.try_emplace(key, options_.secret, host_id_).first->second;
    guest.address = peer_address(*fd);
    guest.fd = *std::move(fd);
    events_.add(guest.fd.get(), key, EPOLLIN);
  }
}

// A stranger goes for the one who waits, who may be a client.
void ServerLoop::relieve_shortage() {
  if (!std::exchange(shortage_logged_, true)) {
    log_warn(
        "the server at port {} has no file descriptors left for more connections; raise its "
        "limit (ulimit -n)",
        port_);
  }
  if (!guests_.empty()) return refuse(guests_.begin(), "no file descriptors left");
  shortage_ = Deadline::after(kShortageTime);
  events_.change(listener_.get(), kListener, 0);
}

void ServerLoop::serve_guest(Guests::iterator entry) {
  Guest& guest = entry->second;
  try {
    std::string bytes;
    bool closed = read_available(guest.fd, bytes) == IoStatus::kClosed;
    guest.greeting.handle(bytes, guest.outbox);
    closed |= write_available(guest.fd, guest.outbox) == IoStatus::kClosed;
    if (closed) return refuse(entry, "it went away before it was welcome");
    if (!guest.greeting.refusal().empty()) return refuse(entry, guest.greeting.refusal());
    // What is said to guests is far less than a socket takes at once.
    if (!guest.outbox.empty()) return refuse(entry, "it does not listen");
    if (guest.greeting.welcomed()) welcome(entry);
  } catch (const CommError& error) {
    refuse(entry, error.what());
  }
}

void ServerLoop::refuse(Guests::iterator guest, std::string_view why) {
  if (++refused_ <= kLoggedGuests) {
    log_warn("refused a connection from {} to the server at port {}: {}", guest->second.address,
             port_, why);
    reported_ = refused_;
  }
  guests_.erase(guest);
}

void ServerLoop::refuse_the_slow() {
  while (!guests_.empty() && guests_.begin()->second.deadline.expired()) {
    refuse(guests_.begin(), "it was too slow to prove that it knows the job's secret");
  }
  if (refused_ != reported_ && next_report_.expired()) {
    log_warn("refused {} more connections to the server at port {}, {} in all",
             refused_ - reported_, port_, refused_);
    reported_ = refused_;
    next_report_ = Deadline::after(kReportTime);
  }
}

void ServerLoop::welcome(Guests::iterator entry) {
  const std::uint64_t key = entry->first;
  Guest& guest = entry->second;
  const int fd = guest.fd.get();
  const auto watch = [this, fd, key](bool writable) {
    events_.change(fd, key, EPOLLIN | (writable ? EPOLLOUT : 0U));
  };
  connections_.emplace(key, std::make_shared<ServerConnection>(
                                key, fmt::format("{} at {}", guest.greeting.name(), guest.address),
                                std::move(guest.fd), watch));
  guests_.erase(entry);
}

void ServerLoop::serve_connection(Connections::iterator entry, std::uint32_t events) {
  ServerConnection& connection = *entry->second;
  if ((events & EPOLLOUT) != 0) connection.send_on();
  if ((events & ~std::uint32_t{EPOLLOUT}) == 0) return;
  try {
    if (connection.receive(options_.on_request) == IoStatus::kClosed) end(entry, {});
  } catch (const std::exception& error) {
    log_error("the connection of {} ends: {}", connection.client(), error.what());
    end(entry, error.what());
  }
}

void ServerLoop::end(Connections::iterator entry, const std::string& why) {
  const std::shared_ptr<ServerConnection> connection = entry->second;
  connections_.erase(entry);
  connection->close(why);
  if (!options_.on_closed) return;
  try {
    options_.on_closed(connection->id());
  } catch (const std::exception& error) {
    log_error("the end of the connection of {} was not taken: {}", connection->client(),
              error.what());
  }
}

}  // namespace trireme::detail
