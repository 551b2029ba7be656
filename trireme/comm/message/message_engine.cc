// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/message/message_engine.h"

#include <utility>

#include "trireme/comm/message/mail.h"
#include "trireme/comm/message/message_state.h"
#include "trireme/comm/message/reduction.h"

namespace trireme {
namespace {

class MessageEngine final : public Engine {
 public:
  MessageEngine(const GroupScope& scope, std::shared_ptr<MessagePort> meeting,
                std::shared_ptr<MessagePort> payload, std::unique_ptr<Memory> memory)
      : state_(scope, std::move(meeting), std::move(payload), std::move(memory)),
        reduction_(state_) {}

  std::string_view name() const override { return state_.payload->name(); }
  void run(const Collective& collective, const Deadline& deadline) override;
  void send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline) override {
    send_message(state_, key, data, deadline);
  }
  void receive(const MessageKey& key, const Buffer& data, const Deadline& deadline) override {
    receive_message(state_, key, data, deadline);
  }
  void exchange(const MessageKey& out_key, const ConstBuffer& out, const MessageKey& in_key,
                const Buffer& in, const Deadline& deadline) override {
    exchange_messages(state_, out_key, out, in_key, in, deadline);
  }
  std::int64_t bytes_sent() const override {
    return state_.bytes_sent.load(std::memory_order_relaxed);
  }
  std::int64_t bytes_sent_between_hosts() const override {
    return state_.bytes_sent_between_hosts.load(std::memory_order_relaxed);
  }

 private:
  MessageState state_;
  Reduction reduction_;
};

void MessageEngine::run(const Collective& collective, const Deadline& deadline) {
  switch (collective.signature.kind) {
    case CollectiveKind::kBarrier:
      return state_.greetings.meet(collective.identity(), deadline);
    case CollectiveKind::kAllReduce:
    case CollectiveKind::kReduce:
    case CollectiveKind::kReduceScatter:
      return reduction_.run(collective, deadline);
    case CollectiveKind::kBroadcast:
      return broadcast(state_, collective, deadline);
    case CollectiveKind::kAllGather:
    case CollectiveKind::kGather:
    case CollectiveKind::kScatter:
    case CollectiveKind::kAllToAll:
      return move_blocks(state_, collective, deadline);
  }
}

}  // namespace

std::unique_ptr<Engine> make_message_engine(const GroupScope& scope,
                                            std::shared_ptr<MessagePort> meeting,
                                            std::shared_ptr<MessagePort> payload,
                                            std::unique_ptr<Memory> memory) {
  return std::make_unique<MessageEngine>(scope, std::move(meeting), std::move(payload),
                                         std::move(memory));
}

}  // namespace trireme
