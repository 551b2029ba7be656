// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/self_mailbox.h"

namespace trireme {

SelfMailbox::SelfMailbox(const GroupScope& scope)
    : scope_(scope), subscription_(scope.world->latch.subscribe([this] {
        const std::lock_guard lock(mutex_);
        changed_.notify_all();
      })) {}

SelfMailbox::~SelfMailbox() { scope_.world->latch.unsubscribe(subscription_); }

void SelfMailbox::send(const MessageKey& key, const ConstBuffer& data, Memory& memory) {
  Letter letter{data.count, data.dtype, std::vector<std::byte>(data.bytes())};
  memory.copy(letter.bytes.data(), data.data, data.bytes());
  const std::lock_guard lock(mutex_);
  letters_.emplace(std::pair(key.tag, key.sequence), std::move(letter));
  changed_.notify_all();
}

void SelfMailbox::receive(const MessageKey& key, const Buffer& data, Memory& memory,
                          const Deadline& deadline) {
  const std::pair place(key.tag, key.sequence);
  std::unique_lock lock(mutex_);
  const bool there = changed_.wait_until(lock, deadline.time_point(), [&] {
    return letters_.contains(place) || scope_.world->latch.failed();
  });
  const auto found = letters_.find(place);
  if (found == letters_.end()) {
    lock.unlock();
    scope_.world->latch.throw_if_failed();
    if (!there) {
      timeout_error(scope_, OperationName(key, false, data.count, data.dtype), {scope_.rank});
    }
  }
  const Letter letter = std::move(found->second);
  letters_.erase(found);
  lock.unlock();
  if (letter.count != data.count || letter.dtype != data.dtype) {
    message_mismatch_error(scope_, key, false, data, letter.count, letter.dtype);
  }
  memory.copy(data.data, letter.bytes.data(), letter.bytes.size());
}

}  // namespace trireme
