// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/mpi/mpi_port.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "trireme/base/error.h"
#include "trireme/comm/shm/shared_word.h"

namespace trireme {
namespace {

// Until a wait sleeps: what falling asleep and waking cost, some times.
constexpr std::chrono::microseconds kYieldTime{200};
// The share of the time waited that one sleep takes, and the longest: small against what is waited
// for, and a failure is noticed that soon.
constexpr int kSleepShare = 16;
constexpr std::chrono::microseconds kLongestSleep{1000};

class Pause {
 public:
  explicit Pause(const MpiPort& port) : port_(port), began_(Deadline::Clock::now()) {}

  // count is of the last poll().
  void rest(std::uint64_t count) {
    const auto now = Deadline::Clock::now();
    if (count != count_) began_ = now;
    count_ = count;
    const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(now - began_);
    if (port_.may_spin() && waited < kSpinTime) return;
    if (waited < kYieldTime) return std::this_thread::yield();
    port_.mesh().rest(count, std::min(waited / kSleepShare, kLongestSleep));
  }

 private:
  const MpiPort& port_;
  Deadline::Clock::time_point began_;
  std::uint64_t count_ = 0;
};

}  // namespace

MpiPort::MpiPort(const GroupScope& scope)
    : scope_(scope), may_spin_(every_rank_has_a_core(scope)) {}

std::unique_ptr<Flight> MpiPort::make_flight() { return std::make_unique<MpiFlight>(*this); }

MpiFlight::~MpiFlight() {
  for (const Entry& entry : entries_) port_.mesh().forget(*entry.message);
}

void MpiFlight::send(int peer, const Lane& lane, const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  entries_.push_back(
      {peer, false, port_.mesh().send(world_rank(peer), port_.scope().id, lane, data, bytes)});
}

void MpiFlight::receive(int peer, const Lane& lane, void* data, std::size_t bytes) {
  if (bytes == 0) return;
  entries_.push_back(
      {peer, true, port_.mesh().receive(world_rank(peer), port_.scope().id, lane, data, bytes)});
}

void MpiFlight::wait(const OperationName& what, const Deadline& deadline) {
  const GroupScope& scope = port_.scope();
  Pause pause(port_);
  std::optional<Deadline> last_words;
  std::optional<WaitBoard::Posted> posted;
  int waits_for = -1;
  for (;;) {
    scope.world->latch.throw_if_failed();
    const std::uint64_t count = port_.mesh().poll();
    const Entry* pending = first_pending(what);
    if (pending == nullptr) break;
    if (pending->peer != waits_for) {
      waits_for = pending->peer;
      posted.emplace(scope, what, waits_for);
    }
    if (!last_words && scope.has_left(pending->peer)) {
      last_words = Deadline::after(kLastWordsTime);
    }
    if (last_words && last_words->expired()) left_error(scope, what, pending->peer);
    if (deadline.expired()) {
      if (scope.has_left(pending->peer)) left_error(scope, what, pending->peer);
      timeout_error(scope, what, missing());
    }
    pause.rest(count);
  }
  entries_.clear();
}

const MpiFlight::Entry* MpiFlight::first_pending(const OperationName& what) const {
  const Entry* pending = nullptr;
  for (const Entry& entry : entries_) {
    if (!entry.message->done()) {
      // What arrives first: a peer that does not send is not there, one that does not receive may
      // only be behind.
      if (pending == nullptr || (entry.receive && !pending->receive)) pending = &entry;
    } else if (!entry.message->error().empty()) {
      lost(entry, what);
    }
  }
  return pending;
}

void MpiFlight::lost(const Entry& entry, const OperationName& what) const {
  const GroupScope& scope = port_.scope();
  scope.world->latch.throw_cause_of_a_break();
  if (scope.has_left(entry.peer)) left_error(scope, what, entry.peer);
  const Member& member = scope.member(entry.peer);
  throw PeerLostError(member.rank,
                      fmt::format("group {}: a message {} rank {} on {} was lost in {}: {}",
                                  scope.name, entry.receive ? "from" : "to", member.rank,
                                  member.host_name, what.text(scope), entry.message->error()));
}

std::vector<int> MpiFlight::missing() const {
  std::vector<int> peers;
  for (const bool receives : {true, false}) {
    for (const Entry& entry : entries_) {
      if (entry.receive == receives && !entry.message->done()) peers.push_back(entry.peer);
    }
    // A send ends late when its receiver is late; that says nothing new of who sent in time.
    if (!peers.empty()) break;
  }
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  return peers;
}

}  // namespace trireme
