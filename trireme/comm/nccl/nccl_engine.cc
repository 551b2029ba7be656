// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <xxhash.h>

#include "trireme/comm/engine.h"
#include "trireme/comm/gloo/gloo_port.h"
#include "trireme/comm/message/message_engine.h"
#include "trireme/comm/nccl/nccl_port.h"

namespace trireme {
namespace {

// The same group under another id: what ranks tell one another for it over Gloo is not mixed with
// what they do for the engine of their buffers on the host.
GroupScope on_devices(GroupScope scope) {
  constexpr std::uint64_t kDevices = 0x6e63636c;
  scope.id = XXH3_64bits_withSeed(&scope.id, sizeof(scope.id), kDevices);
  return scope;
}

class NcclEngine final : public Engine {
 public:
  explicit NcclEngine(const GroupScope& scope) : scope_(on_devices(scope)) {
    const auto meeting = std::make_shared<GlooPort>(scope_);
    engine_ = make_message_engine(scope_, meeting, std::make_shared<NcclPort>(scope_, meeting),
                                  scope_.world->nccl->make_memory());
  }

  std::string_view name() const override { return engine_->name(); }
  void run(const Collective& collective, const Deadline& deadline) override {
    engine_->run(collective, deadline);
  }
  void send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline) override {
    engine_->send(key, data, deadline);
  }
  void receive(const MessageKey& key, const Buffer& data, const Deadline& deadline) override {
    engine_->receive(key, data, deadline);
  }
  void exchange(const MessageKey& out_key, const ConstBuffer& out, const MessageKey& in_key,
                const Buffer& in, const Deadline& deadline) override {
    engine_->exchange(out_key, out, in_key, in, deadline);
  }
  std::int64_t bytes_sent() const override { return engine_->bytes_sent(); }
  std::int64_t bytes_sent_between_hosts() const override {
    return engine_->bytes_sent_between_hosts();
  }

 private:
  const GroupScope scope_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace

std::unique_ptr<Engine> make_nccl_engine(const GroupScope& scope) {
  return std::make_unique<NcclEngine>(scope);
}

}  // namespace trireme
