// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the operations of a message engine share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/message/greetings.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/message/message_port.h"
#include "trireme/comm/world_state.h"

namespace trireme {

struct MessageState {
  MessageState(const GroupScope& group, std::shared_ptr<MessagePort> meeting_port,
               std::shared_ptr<MessagePort> payload_port, std::unique_ptr<Memory> payload_memory)
      : scope(group),
        meeting(std::move(meeting_port)),
        payload(std::move(payload_port)),
        memory(std::move(payload_memory)),
        greetings(group, *meeting) {}

  const GroupScope& scope;
  const std::shared_ptr<MessagePort> meeting;
  const std::shared_ptr<MessagePort> payload;
  const std::unique_ptr<Memory> memory;
  std::atomic<std::int64_t> bytes_sent = 0;
  std::atomic<std::int64_t> bytes_sent_between_hosts = 0;

  // Of the collective under way.
  Greetings greetings;

  // True for data that travels with a greeting or a header instead of in messages of its own.
  bool is_small(std::size_t bytes) const { return bytes <= kSmallBytes && memory->is_host(); }

  // Calls f(peer) for the others, nearest above this rank first, so that not all begin with rank 0.
  template <class F>
  void for_each_peer(F f) const {
    for (int i = 1; i < scope.size(); ++i) f((scope.rank + i) % scope.size());
  }

  void count_sent(int peer, std::size_t bytes) {
    const auto n = static_cast<std::int64_t>(bytes);
    bytes_sent.fetch_add(n, std::memory_order_relaxed);
    if (!scope.is_local(peer)) bytes_sent_between_hosts.fetch_add(n, std::memory_order_relaxed);
  }
  void send(Flight& flight, int peer, const Lane& lane, std::span<const std::byte> data) {
    flight.send(peer, lane, data.data(), data.size());
    count_sent(peer, data.size());
  }
  // Into the greeting to peer, behind what is there; size is what is there.
  void enclose(int peer, std::size_t& size, std::span<const std::byte> data) {
    memory->copy(greetings.to(peer).data + size, data.data(), data.size());
    size += data.size();
    greetings.set_size(peer, size);
  }
};

// all_gather, gather, scatter, all_to_all.
void move_blocks(MessageState& state, const Collective& collective, const Deadline& deadline);
void broadcast(MessageState& state, const Collective& collective, const Deadline& deadline);

}  // namespace trireme
