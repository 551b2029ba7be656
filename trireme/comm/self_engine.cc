// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A group of one: the result of every operation is its own input.

#include <cstring>

#include "trireme/base/check.h"
#include "trireme/comm/engine.h"

namespace trireme {
namespace {

class SelfEngine final : public Engine {
 public:
  std::string_view name() const override { return "self"; }
  void run(const Collective& collective, const Deadline&) override {
    const ConstBuffer& input = collective.input;
    if (input.bytes() > 0) std::memmove(collective.output.data, input.data, input.bytes());
  }
  // Messages to oneself are the group's.
  void send(const MessageKey& key, const ConstBuffer&, const Deadline&) override { no_peer(key); }
  void receive(const MessageKey& key, const Buffer&, const Deadline&) override { no_peer(key); }
  void exchange(const MessageKey& key, const ConstBuffer&, const MessageKey&, const Buffer&,
                const Deadline&) override {
    no_peer(key);
  }
  std::int64_t bytes_sent() const override { return 0; }
  std::int64_t bytes_sent_between_hosts() const override { return 0; }

 private:
  static void no_peer(const MessageKey& key) {
    TRIREME_ASSERT(false, "rank {} in a group of one", key.peer);
  }
};

}  // namespace

std::unique_ptr<Engine> make_self_engine() { return std::make_unique<SelfEngine>(); }

}  // namespace trireme
