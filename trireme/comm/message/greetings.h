// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The exchange with which every operation of a message engine begins: each rank tells each other
// what it calls, and gives it what small data it has for it. Nobody interprets data of another
// operation, and who has not come is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/message/message_port.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Data up to this size travels with a signature: about what fits into three packets, and so costs
// no more than the signature alone.
constexpr std::size_t kSmallBytes = 4 << 10;

struct alignas(64) Greeting {
  Signature signature;
  // all_to_all: elements that the greeter sends to whom it greets, and that it expects from there.
  std::int64_t sends = 0;
  std::int64_t expects = 0;
  std::byte unused[16] = {};
  std::byte data[kSmallBytes];
};

// One operation at a time.
class Greetings {
 public:
  Greetings(const GroupScope& scope, MessagePort& port);

  // What the next meet() gives to a peer, and how many bytes of its data.
  Greeting& to(int peer) { return outgoing_[static_cast<std::size_t>(peer)]; }
  void set_size(int peer, std::size_t bytes) { sizes_[static_cast<std::size_t>(peer)] = bytes; }
  // The next meet() gives to(own rank) to everybody.
  void give_all_the_same() { same_for_all_ = true; }

  // Returns when all ranks have come and call the same. Throws what Engine::run() does.
  void meet(const Signature& signature, const Deadline& deadline);

  // Of the last meet(), valid until the next one begins. This rank's own is to(own rank).
  const Greeting& from(int peer) const;

 private:
  void await(int parity);

  const GroupScope& scope_;
  MessagePort& port_;
  std::vector<Greeting> outgoing_;
  std::vector<std::size_t> sizes_;
  bool same_for_all_ = false;
  // Greetings of the next operation may come while this one runs: they are received alternately
  // into two sets, and each set is awaited one operation ahead.
  std::vector<Greeting> received_[2];
  std::unique_ptr<Flight> awaited_[2];
  int parity_ = 0;
};

}  // namespace trireme
