// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages of a rank to itself: kept here from their send to their recv.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Any thread may call any function.
class SelfMailbox {
 public:
  // scope must outlive it.
  explicit SelfMailbox(const GroupScope& scope);
  ~SelfMailbox();

  // memory is where data lies.
  void send(const MessageKey& key, const ConstBuffer& data, Memory& memory);
  // Blocks until the message is there. Errors: Engine::receive().
  void receive(const MessageKey& key, const Buffer& data, Memory& memory, const Deadline& deadline);

 private:
  struct Letter {
    std::int64_t count;
    DType dtype;
    std::vector<std::byte> bytes;
  };

  const GroupScope& scope_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, std::uint64_t>, Letter> letters_;  // guarded by mutex_
  int subscription_;                                         // last: may wake at once
};

}  // namespace trireme
