// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/hierarchy/hierarchical_engine.h"

#include <algorithm>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/comm/hierarchy/slices.h"
#include "trireme/comm/two_halves.h"

namespace trireme {
namespace {

// Up to here one rail is enough: more of them cost more messages than they save.
constexpr std::int64_t kOneRailBytes = 64 << 10;
// Pieces: enough of them to overlap, large enough to cover a network's latency many times.
constexpr std::int64_t kSmallestPieceBytes = 1 << 20;
constexpr std::int64_t kLargestPieceBytes = 16 << 20;
constexpr std::int64_t kWantedPieces = 8;

std::vector<std::vector<TreeNode>> covers_of(const HostMap& hosts, int leaves) {
  std::vector<std::vector<TreeNode>> covers;
  for (int host = 0; host < hosts.num_hosts(); ++host) {
    covers.push_back(tree_cover(leaves, hosts.ranks_on(host)));
  }
  return covers;
}

std::unique_ptr<Engine> make_local_engine(const GroupScope& scope) {
  return scope.size() == 1 ? make_self_engine(make_host_memory()) : make_shm_engine(scope);
}

}  // namespace

HierarchicalEngine::HierarchicalEngine(const GroupScope& scope, EngineFactory between)
    : scope_(scope),
      hosts_(scope),
      local_scope_(hosts_.local_scope()),
      rail_scope_(hosts_.on_rail() ? hosts_.rail_scope() : GroupScope{}),
      local_(make_local_engine(local_scope_)),
      rail_(hosts_.on_rail() ? between(rail_scope_) : nullptr),
      pairs_(between(scope)),
      name_("shm+" + std::string(pairs_->name())),
      covers_(covers_of(hosts_, scope.size())),
      scratch_(6) {}

void HierarchicalEngine::run(const Collective& collective, const Deadline& deadline) {
  TRIREME_ASSERT(collective.partial == nullptr, "hierarchies are not nested");
  collective_ = &collective;
  deadline_ = deadline;
  try {
    dispatch();
  } catch (const std::exception& error) {
    // The rail may wait for ranks that wait for this one: it has to hear that it is over.
    scope_.world->control->announce(Failure::of(error));
    try {
      rail_worker_.wait();
    } catch (const std::exception&) {
      // The first cause is what counts.
    }
    throw;
  }
}

void HierarchicalEngine::dispatch() {
  switch (collective_->signature.kind) {
    case CollectiveKind::kBarrier:
      return barrier();
    case CollectiveKind::kAllReduce:
      return all_reduce();
    case CollectiveKind::kReduceScatter:
      return reduce_scatter();
    case CollectiveKind::kAllGather:
      return all_gather();
    case CollectiveKind::kBroadcast:
      return broadcast();
    case CollectiveKind::kReduce:
      return reduce();
    case CollectiveKind::kGather:
      return gather();
    case CollectiveKind::kScatter:
      return scatter();
    case CollectiveKind::kAllToAll:
      return all_to_all();
  }
}

void HierarchicalEngine::pass(std::int64_t pieces, const Stages& stages) {
  const auto across = [&](std::int64_t piece) {
    if (hosts_.on_rail()) stages.across(piece);
  };
  if (pieces <= 1) {
    stages.before(0);
    across(0);
    return stages.after(0);
  }
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    stages.before(piece);
    rail_worker_.wait();
    rail_worker_.start([=] { across(piece); });
    if (piece > 0) stages.after(piece - 1);
  }
  rail_worker_.wait();
  stages.after(pieces - 1);
}

HierarchicalEngine::Step HierarchicalEngine::step(CollectiveKind kind) const {
  Step step;
  step.signature = collective_->signature;
  step.signature.kind = kind;
  step.origin = &collective_->identity();
  return step;
}

void HierarchicalEngine::run_local(const Step& step) { local_->run(step, deadline_); }
void HierarchicalEngine::run_rail(const Step& step) { rail_->run(step, deadline_); }

void HierarchicalEngine::send(const MessageKey& key, const ConstBuffer& data,
                              const Deadline& deadline) {
  if (!scope_.is_local(key.peer)) return pairs_->send(key, data, deadline);
  local_->send({hosts_.local_index_of(key.peer), key.tag, key.sequence}, data, deadline);
}

void HierarchicalEngine::receive(const MessageKey& key, const Buffer& data,
                                 const Deadline& deadline) {
  if (!scope_.is_local(key.peer)) return pairs_->receive(key, data, deadline);
  local_->receive({hosts_.local_index_of(key.peer), key.tag, key.sequence}, data, deadline);
}

void HierarchicalEngine::exchange(const MessageKey& out_key, const ConstBuffer& out,
                                  const MessageKey& in_key, const Buffer& in,
                                  const Deadline& deadline) {
  const bool out_local = scope_.is_local(out_key.peer);
  if (out_local != scope_.is_local(in_key.peer)) {
    return run_two_halves(
        *scope_.world, [&] { send(out_key, out, deadline); },
        [&] { receive(in_key, in, deadline); });
  }
  if (!out_local) return pairs_->exchange(out_key, out, in_key, in, deadline);
  local_->exchange({hosts_.local_index_of(out_key.peer), out_key.tag, out_key.sequence}, out,
                   {hosts_.local_index_of(in_key.peer), in_key.tag, in_key.sequence}, in, deadline);
}

std::int64_t HierarchicalEngine::bytes_sent() const {
  return local_->bytes_sent() + pairs_->bytes_sent() + (rail_ ? rail_->bytes_sent() : 0);
}

std::int64_t HierarchicalEngine::bytes_sent_between_hosts() const {
  return pairs_->bytes_sent_between_hosts() + (rail_ ? rail_->bytes_sent_between_hosts() : 0);
}

std::int64_t HierarchicalEngine::piece_elements(std::int64_t count, DType dtype) const {
  const auto element = static_cast<std::int64_t>(dtype_bytes(dtype));
  const std::int64_t wanted = count * element / kWantedPieces;
  return std::clamp(wanted, kSmallestPieceBytes, kLargestPieceBytes) / element;
}

int HierarchicalEngine::rails_for(std::int64_t bytes) const {
  return bytes <= kOneRailBytes ? 1 : hosts_.num_rails();
}

std::vector<Block> HierarchicalEngine::local_parts(const Block& range, int rails) const {
  std::vector<Block> parts = cut_into(range, rails);
  parts.resize(static_cast<std::size_t>(local_scope_.size()), {range.offset + range.count, 0});
  return parts;
}

std::vector<Block> HierarchicalEngine::host_shares(const Block& range) const {
  return cut_into(range, hosts_.num_hosts());
}

int HierarchicalEngine::rounds() const {
  return (hosts_.most_ranks() + hosts_.num_rails() - 1) / hosts_.num_rails();
}

Block HierarchicalEngine::block_on_rail(const std::vector<Block>& blocks, int host, int round,
                                        int rail) const {
  const int index = round * hosts_.num_rails() + rail;
  if (rail >= hosts_.num_rails() || index >= hosts_.num_ranks_on(host)) return {};
  const int rank = hosts_.ranks_on(host)[static_cast<std::size_t>(index)];
  return blocks[static_cast<std::size_t>(rank)];
}

std::vector<Block> HierarchicalEngine::local_blocks(const std::vector<Block>& blocks) const {
  std::vector<Block> local;
  for (const int rank : hosts_.ranks_on(hosts_.own_host())) {
    local.push_back(blocks[static_cast<std::size_t>(rank)]);
  }
  return local;
}

// The blocks of ranks that are not on the host; theirs are empty.
std::vector<Block> HierarchicalEngine::distant_blocks(const std::vector<Block>& blocks,
                                                      int host) const {
  std::vector<Block> distant = blocks;
  for (const int rank : hosts_.ranks_on(host)) distant[static_cast<std::size_t>(rank)].count = 0;
  return distant;
}

// Slots are used by one stage of one piece in two each: their sizes change between operations only.
Buffer HierarchicalEngine::scratch(std::size_t slot, std::int64_t count, DType dtype) {
  std::vector<std::byte>& bytes = scratch_[slot];
  const std::size_t wanted = static_cast<std::size_t>(count) * dtype_bytes(dtype);
  if (bytes.size() < wanted) bytes.resize(wanted);
  return {bytes.data(), count, dtype};
}

std::unique_ptr<Engine> make_hierarchical_engine(const GroupScope& scope, EngineFactory between) {
  return std::make_unique<HierarchicalEngine>(scope, between);
}

}  // namespace trireme
