// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages between ranks of one host. Each rank makes an inbox with a ring for every other rank and
// says where it is; a sender opens it with its first message, and only then takes the memory of
// its ring. What has been sent stands in the receiver's inbox, so a sender may leave.
//
// Whoever waits for a message from a peer empties that peer's ring, one thread at a time: chunks
// whose receive is posted go straight to its memory, others into a store on the heap, so that
// messages may be received in any order. Of the threads that wait for one peer one sleeps on the
// ring's word and wakes the others when theirs is there (waiter_list.h).
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/shm/shared_memory.h"
#include "trireme/comm/shm/shm_ring.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Any number of threads may call any function. Errors: see Engine.
class ShmMessages {
 public:
  explicit ShmMessages(const GroupScope& scope);
  ~ShmMessages();

  void send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline);
  void receive(const MessageKey& key, const Buffer& data, const Deadline& deadline);
  void exchange(const MessageKey& out_key, const ConstBuffer& out, const MessageKey& in_key,
                const Buffer& in, const Deadline& deadline);

 private:
  struct Outbox;
  struct Inbox;
  class Outgoing;
  class Incoming;

  Outbox& open_outbox(const MessageKey& key, const OperationName& name, const Deadline& deadline);
  std::string inbox_key(int rank) const;
  ShmRing ring_in(const SharedMemory& memory, int sender) const;
  // Throws when nothing is to be waited for any more.
  void check(int peer, bool left, const OperationName& name, const Deadline& deadline) const;
  void wake_sleepers() const;

  const GroupScope& scope_;
  const bool spin_;
  SharedMemory memory_;                            // all inboxes of this rank
  std::vector<std::unique_ptr<Inbox>> inboxes_;    // by sender
  std::vector<std::unique_ptr<Outbox>> outboxes_;  // by receiver
  int subscription_ = -1;
};

}  // namespace trireme
