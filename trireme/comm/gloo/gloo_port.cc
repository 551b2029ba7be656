// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/gloo/gloo_port.h"

#include <gloo/common/error.h>
#include <gloo/transport/unbound_buffer.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/gloo/sigpipe.h"

namespace trireme {
namespace {

// Long enough for a message that is there, short for one that is not.
constexpr std::chrono::milliseconds kProbeTime{1};

}  // namespace

GlooPort::GlooPort(const GroupScope& scope)
    : scope_(scope), subscription_(scope.world->latch.subscribe([this] { interrupt(); })) {}

GlooPort::~GlooPort() { scope_.world->latch.unsubscribe(subscription_); }

std::unique_ptr<Flight> GlooPort::make_flight() { return std::make_unique<GlooFlight>(*this); }

std::uint64_t GlooPort::slot(const Lane& lane) const {
  const std::uint64_t words[] = {scope_.id, static_cast<std::uint64_t>(lane.purpose),
                                 static_cast<std::uint64_t>(lane.tag), lane.sequence};
  return XXH3_64bits(words, sizeof(words));
}

bool GlooPort::wait_once(gloo::transport::UnboundBuffer& buffer, bool receive,
                         std::chrono::milliseconds time) {
  struct Watch {
    Watch(GlooPort& owner, gloo::transport::UnboundBuffer* what) : port(owner), watched(what) {
      const std::lock_guard lock(port.mutex_);
      port.waiting_for_.insert(watched);
    }
    ~Watch() {
      const std::lock_guard lock(port.mutex_);
      port.waiting_for_.erase(watched);
    }
    GlooPort& port;
    gloo::transport::UnboundBuffer* watched;
  } const watch(*this, &buffer);
  // The latch may have fallen before the wake could find the buffer.
  if (scope_.world->latch.failed()) return false;
  return receive ? buffer.waitRecv(time) : buffer.waitSend(time);
}

void GlooPort::interrupt() {
  const std::lock_guard lock(mutex_);
  for (gloo::transport::UnboundBuffer* buffer : waiting_for_) {
    buffer->abortWaitRecv();
    buffer->abortWaitSend();
  }
}

GlooFlight::GlooFlight(GlooPort& port) : port_(port) {}
GlooFlight::~GlooFlight() = default;

void GlooFlight::send(int peer, const Lane& lane, const void* data, std::size_t bytes) {
  // Gloo's buffers serve both directions and so are not const.
  add(peer, false, lane, const_cast<void*>(data), bytes);
}

void GlooFlight::receive(int peer, const Lane& lane, void* data, std::size_t bytes) {
  add(peer, true, lane, data, bytes);
}

void GlooFlight::add(int peer, bool receive, const Lane& lane, void* data, std::size_t bytes) {
  if (bytes == 0) return;
  const NoSigpipe no_sigpipe;
  const GroupScope& scope = port_.scope_;
  const int rank = scope.world_ranks[static_cast<std::size_t>(peer)];
  Message& message =
      messages_.emplace_back(Message{peer, receive, scope.world->mesh->buffer(data, bytes), {}});
  try {
    if (receive) {
      message.buffer->recv(rank, port_.slot(lane), 0, bytes);
    } else {
      message.buffer->send(rank, port_.slot(lane), 0, bytes);
    }
  } catch (const std::exception& error) {
    message.refusal = error.what();
  }
}

void GlooFlight::wait(const OperationName& what, const Deadline& deadline) {
  // What arrives first: a peer that does not send is not there, one that does not receive may only
  // be behind.
  std::stable_partition(messages_.begin(), messages_.end(),
                        [](const Message& message) { return message.receive; });
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    const WaitBoard::Posted posted(port_.scope_, what, messages_[i].peer);
    try {
      wait_for(messages_[i], what, deadline);
    } catch (const gloo::Exception& error) {
      fail(i, what, deadline, error.what());
    }
  }
  messages_.clear();
}

void GlooFlight::wait_for(const Message& message, const OperationName& what,
                          const Deadline& deadline) {
  const GroupScope& scope = port_.scope_;
  if (!message.refusal.empty()) throw gloo::IoException(message.refusal);
  Deadline end = deadline;
  bool left = false;
  for (;;) {
    const auto time = std::max(end.remaining(), kProbeTime);
    if (port_.wait_once(*message.buffer, message.receive, time)) return;
    scope.world->latch.throw_if_failed();
    if (left && end.expired()) left_error(scope, what, message.peer);
    if (!left && scope.has_left(message.peer)) {
      left = true;
      const Deadline grace = Deadline::after(kLastWordsTime);
      if (grace.time_point() < end.time_point()) end = grace;
    }
  }
}

void GlooFlight::fail(std::size_t at, const OperationName& what, const Deadline& deadline,
                      const char* why) {
  const GroupScope& scope = port_.scope_;
  const int peer = messages_[at].peer;
  scope.world->latch.throw_if_failed();
  if (scope.has_left(peer)) left_error(scope, what, peer);
  if (deadline.expired()) {
    timeout_error(scope, what, missing_from(at));
  }
  scope.world->latch.throw_cause_of_a_break();
  const int rank = scope.world_ranks[static_cast<std::size_t>(peer)];
  throw PeerLostError(
      rank,
      fmt::format("group {}: the gloo connection to rank {} on {} broke in {}: {}", scope.name,
                  rank, scope.world->members[static_cast<std::size_t>(rank)].host_name,
                  what.text(scope), why));
}

std::vector<int> GlooFlight::missing_from(std::size_t at) {
  std::vector<int> missing{messages_[at].peer};
  for (std::size_t i = at + 1; i < messages_.size(); ++i) {
    const int peer = messages_[i].peer;
    // A send ends late when its receiver is late; that says nothing new of who sent in time.
    if (messages_[i].receive != messages_[at].receive) break;
    try {
      if (port_.wait_once(*messages_[i].buffer, messages_[i].receive, kProbeTime)) continue;
    } catch (const gloo::Exception&) {
      // It is not there.
    }
    if (std::find(missing.begin(), missing.end(), peer) == missing.end()) missing.push_back(peer);
  }
  std::sort(missing.begin(), missing.end());
  return missing;
}

}  // namespace trireme
