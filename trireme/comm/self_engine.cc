// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A group of one: the result of every operation is its own input.

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme {
namespace {

std::int64_t element_bytes(DType dtype) { return static_cast<std::int64_t>(dtype_bytes(dtype)); }

const std::byte* at(const ConstBuffer& buffer, std::int64_t offset) {
  return static_cast<const std::byte*>(buffer.data) + offset * element_bytes(buffer.dtype);
}
std::byte* at(const Buffer& buffer, std::int64_t offset) {
  return static_cast<std::byte*>(buffer.data) + offset * element_bytes(buffer.dtype);
}

class SelfEngine final : public Engine {
 public:
  explicit SelfEngine(std::unique_ptr<Memory> memory) : memory_(std::move(memory)) {}

  std::string_view name() const override { return "self"; }
  void run(const Collective& collective, const Deadline&) override {
    const ConstBuffer& input = collective.input;
    const Buffer& output = collective.output;
    if (collective.blocks.empty()) return;
    const Block& block = collective.blocks[0];
    const std::int64_t bytes = block.count * element_bytes(output.dtype);
    switch (collective.signature.kind) {
      case CollectiveKind::kReduceScatter:
        if (collective.partial != nullptr) return combine(collective, *collective.partial);
        [[fallthrough]];
      case CollectiveKind::kScatter:
        return copy(at(output, 0), at(input, block.offset), bytes);
      case CollectiveKind::kAllGather:
      case CollectiveKind::kGather:
        return copy(at(output, block.offset), at(input, 0), bytes);
      case CollectiveKind::kAllToAll:
        return copy(at(output, block.offset), at(input, collective.send_blocks[0].offset), bytes);
      case CollectiveKind::kBarrier:
      case CollectiveKind::kAllReduce:
      case CollectiveKind::kBroadcast:
      case CollectiveKind::kReduce:
        return;
    }
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
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
    memory_->copy(to, from, static_cast<std::size_t>(bytes));
  }
  void combine(const Collective& collective, const PartialReduction& partial);

  const std::unique_ptr<Memory> memory_;
};

// The group of one brings all leaves of every output.
void SelfEngine::combine(const Collective& collective, const PartialReduction& partial) {
  const std::vector<TreeNode>& own = partial.inputs[0];
  for (std::size_t o = 0; o < partial.outputs.size(); ++o) {
    std::vector<TreeNode> nodes;
    std::vector<const void*> inputs;
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (own[i].begin < partial.outputs[o].begin || own[i].end > partial.outputs[o].end) continue;
      nodes.push_back(own[i]);
      inputs.push_back(
          at(collective.input,
             collective.blocks[0].offset + static_cast<std::int64_t>(i) * partial.input_stride));
    }
    const NodeReduction reduction{partial.leaves,          nodes,
                                  collective.input.dtype,  collective.output.dtype,
                                  collective.signature.op, partial.finish};
    memory_->reduce(reduction, inputs,
                    at(collective.output, static_cast<std::int64_t>(o) * partial.output_stride),
                    collective.blocks[0].count);
  }
}

}  // namespace

std::unique_ptr<Engine> make_self_engine(std::unique_ptr<Memory> memory) {
  return std::make_unique<SelfEngine>(std::move(memory));
}

}  // namespace trireme
