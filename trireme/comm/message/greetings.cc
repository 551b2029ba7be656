// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/message/greetings.h"

#include <algorithm>

namespace trireme {
namespace {

constexpr Lane kMeet{Lane::Purpose::kMeet};

}  // namespace

Greetings::Greetings(const GroupScope& scope, MessagePort& port)
    : scope_(scope),
      port_(port),
      outgoing_(static_cast<std::size_t>(scope.size())),
      sizes_(static_cast<std::size_t>(scope.size())) {
  for (auto& greetings : received_) greetings.resize(static_cast<std::size_t>(scope.size()));
}

const Greeting& Greetings::from(int peer) const {
  const auto at = static_cast<std::size_t>(peer);
  return peer == scope_.rank ? outgoing_[at] : received_[parity_ ^ 1][at];
}

void Greetings::await(int parity) {
  if (awaited_[parity] == nullptr) awaited_[parity] = port_.make_flight();
  for (int i = 1; i < scope_.size(); ++i) {
    const int peer = (scope_.rank + i) % scope_.size();
    awaited_[parity]->receive(peer, kMeet, &received_[parity][static_cast<std::size_t>(peer)],
                              sizeof(Greeting));
  }
}

void Greetings::meet(const Signature& signature, const Deadline& deadline) {
  if (awaited_[parity_] == nullptr) await(parity_);
  await(parity_ ^ 1);
  const std::unique_ptr<Flight> sent = port_.make_flight();
  // Nearest above this rank first, so that not all begin with rank 0.
  for (int i = 1; i < scope_.size(); ++i) {
    const int peer = (scope_.rank + i) % scope_.size();
    const auto at = static_cast<std::size_t>(same_for_all_ ? scope_.rank : peer);
    outgoing_[at].signature = signature;
    sent->send(peer, kMeet, &outgoing_[at], offsetof(Greeting, data) + sizes_[at]);
  }
  const OperationName name(signature);
  awaited_[parity_]->wait(name, deadline);
  sent->wait(name, deadline);
  for (int peer = 0; peer < scope_.size(); ++peer) {
    if (peer == scope_.rank) continue;
    const Signature& theirs = received_[parity_][static_cast<std::size_t>(peer)].signature;
    if (theirs != signature) mismatch_error(scope_, signature, peer, theirs);
  }
  parity_ ^= 1;
  same_for_all_ = false;
  std::fill(sizes_.begin(), sizes_.end(), 0);
}

}  // namespace trireme
