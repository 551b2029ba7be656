// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/failure.h"

#include <utility>

#include "trireme/base/error.h"

namespace trireme {

void Failure::raise() const {
  switch (kind) {
    case Kind::kTimeout:
      throw TimeoutError(message);
    case Kind::kPeerLost:
      throw PeerLostError(rank, message);
    case Kind::kConfig:
      throw ConfigError(message);
    case Kind::kComm:
      break;
  }
  throw CommError(message);
}

Failure Failure::of(const std::exception& error) {
  if (const auto* lost = dynamic_cast<const PeerLostError*>(&error)) {
    return {Kind::kPeerLost, lost->rank(), error.what()};
  }
  if (dynamic_cast<const TimeoutError*>(&error) != nullptr) {
    return {Kind::kTimeout, -1, error.what()};
  }
  if (dynamic_cast<const ConfigError*>(&error) != nullptr) {
    return {Kind::kConfig, -1, error.what()};
  }
  return {Kind::kComm, -1, error.what()};
}

void FailureLatch::throw_if_failed() const {
  if (!failed()) return;
  std::optional<Failure> copy = cause();
  copy->raise();
}

std::optional<Failure> FailureLatch::cause() const {
  const std::lock_guard lock(mutex_);
  return cause_;
}

bool FailureLatch::fail(const Failure& failure) {
  const std::lock_guard lock(mutex_);
  if (cause_) return false;
  cause_ = failure;
  failed_.store(true, std::memory_order_release);
  changed_.notify_all();
  for (const auto& [token, wake] : subscribers_) wake();
  return true;
}

bool FailureLatch::wait_for(std::chrono::milliseconds time) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [&] { return cause_.has_value(); });
}

void FailureLatch::throw_cause_of_a_break() const {
  constexpr std::chrono::milliseconds kCauseTime = std::chrono::seconds(1);
  wait_for(kCauseTime);
  throw_if_failed();
}

int FailureLatch::subscribe(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  subscribers_.emplace(next_token_, std::move(wake));
  return next_token_++;
}

void FailureLatch::unsubscribe(int token) {
  const std::lock_guard lock(mutex_);
  subscribers_.erase(token);
}

void FailureLatch::wake_all() {
  const std::lock_guard lock(mutex_);
  for (const auto& [token, wake] : subscribers_) wake();
}

}  // namespace trireme
