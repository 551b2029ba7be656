// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// all_reduce, reduce and reduce_scatter between hosts. A host combines those of its ranks that form
// whole nodes of the tree; the nodes, unrounded, cross the network; whoever is responsible for a
// share combines the nodes of all hosts. Ranks that are placed host by host in powers of two form
// one node per host, so that every element crosses once each way.

#include "trireme/comm/hierarchy/hierarchical_engine.h"
#include "trireme/comm/hierarchy/slices.h"

namespace trireme {
namespace {

constexpr std::size_t kNodes = 0;   // two slots: of even and of odd pieces
constexpr std::size_t kShares = 2;  // two slots
constexpr std::size_t kParts = 4;   // two slots

std::size_t slot_of(std::size_t first, std::int64_t piece) {
  return first + static_cast<std::size_t>(piece & 1);
}

}  // namespace

PartialReduction HierarchicalEngine::local_partial(std::int64_t output_stride) const {
  PartialReduction partial;
  partial.leaves = scope_.size();
  for (const int rank : hosts_.ranks_on(hosts_.own_host())) {
    partial.inputs.push_back({{rank, rank + 1}});
  }
  partial.outputs = covers_[own_host()];
  partial.output_stride = output_stride;
  return partial;
}

PartialReduction HierarchicalEngine::rail_partial(std::int64_t input_stride) const {
  PartialReduction partial;
  partial.leaves = scope_.size();
  partial.inputs = covers_;
  partial.outputs = {{0, scope_.size()}};
  partial.input_stride = input_stride;
  partial.finish = true;
  return partial;
}

// nodes: this host's nodes of this rank's part of data, one every stride elements.
void HierarchicalEngine::combine_locally(const Buffer& data, const std::vector<Block>& parts,
                                         const Buffer& nodes, std::int64_t stride) {
  const PartialReduction partial = local_partial(stride);
  Step combine = step(CollectiveKind::kReduceScatter);
  combine.signature.root = -1;
  combine.input = data;
  combine.output = nodes;
  combine.blocks = parts;
  combine.partial = &partial;
  run_local(combine);
}

// output: this host's share of the finished reduction.
void HierarchicalEngine::combine_along_rail(const ConstBuffer& nodes,
                                            const std::vector<Block>& shares, const Buffer& output,
                                            std::int64_t stride) {
  const PartialReduction partial = rail_partial(stride);
  Step combine = step(CollectiveKind::kReduceScatter);
  combine.signature.root = -1;
  combine.input = nodes;
  combine.output = output;
  combine.blocks = shares;
  combine.partial = &partial;
  run_rail(combine);
}

void HierarchicalEngine::all_reduce() {
  const Buffer& data = collective_->output;
  const DType wide = accumulation_dtype(data.dtype);
  const int rails = rails_for(static_cast<std::int64_t>(data.bytes()));
  const std::int64_t size = piece_elements(data.count, data.dtype);
  const std::int64_t stride = (std::min(size, data.count) + rails - 1) / rails;
  const auto parts = [&](std::int64_t piece) {
    return local_parts(piece_of({0, data.count}, piece, size), rails);
  };
  for (int i = 0; i < 2; ++i) scratch(slot_of(kNodes, i), own_nodes() * stride, wide);
  const auto nodes = [&](std::int64_t piece) {
    return scratch(slot_of(kNodes, piece), own_nodes() * stride, wide);
  };
  const auto before = [&](std::int64_t piece) {
    combine_locally(data, parts(piece), nodes(piece), stride);
  };
  const auto across = [&](std::int64_t piece) {
    if (hosts_.own_local_index() >= rails) return;
    const Block part = parts(piece)[own_index()];
    const std::vector<Block> shares = host_shares({0, part.count});
    const std::vector<Block> placed = host_shares(part);
    const Buffer own = slice(data, placed[own_host()]);
    combine_along_rail(nodes(piece), shares, own, stride);
    Step spread = step(CollectiveKind::kAllGather);
    spread.input = own;
    spread.output = data;
    spread.blocks = placed;
    run_rail(spread);
  };
  const auto after = [&](std::int64_t piece) {
    Step spread = step(CollectiveKind::kAllGather);
    spread.blocks = parts(piece);
    spread.input = slice(data, spread.blocks[own_index()]);
    spread.output = data;
    run_local(spread);
  };
  pass(pieces_in(data.count, size), {before, across, after});
}

// As all_reduce, but the shares go to the root's host alone, and there to the root; everybody
// else's data stays as it is.
void HierarchicalEngine::reduce() {
  const Buffer& data = collective_->output;
  const DType wide = accumulation_dtype(data.dtype);
  const int root = collective_->signature.root;
  const int root_host = hosts_.host_of(root);
  const int rails = rails_for(static_cast<std::int64_t>(data.bytes()));
  const std::int64_t size = piece_elements(data.count, data.dtype);
  const std::int64_t stride = (std::min(size, data.count) + rails - 1) / rails;
  const auto parts = [&](std::int64_t piece) {
    return local_parts(piece_of({0, data.count}, piece, size), rails);
  };
  for (int i = 0; i < 2; ++i) {
    scratch(slot_of(kNodes, i), own_nodes() * stride, wide);
    scratch(slot_of(kShares, i), stride, data.dtype);
    scratch(slot_of(kParts, i), stride, data.dtype);
  }
  const auto before = [&](std::int64_t piece) {
    combine_locally(data, parts(piece), scratch(slot_of(kNodes, piece), own_nodes() * stride, wide),
                    stride);
  };
  const auto across = [&](std::int64_t piece) {
    if (hosts_.own_local_index() >= rails) return;
    const Block part{0, parts(piece)[own_index()].count};
    const std::vector<Block> shares = host_shares(part);
    const Buffer share = scratch(slot_of(kShares, piece), shares[own_host()].count, data.dtype);
    combine_along_rail(scratch(slot_of(kNodes, piece), own_nodes() * stride, wide), shares, share,
                       stride);
    Step collect = step(CollectiveKind::kGather);
    collect.signature.root = root_host;
    collect.input = share;
    collect.blocks = shares;
    if (hosts_.own_host() == root_host) {
      collect.output = scratch(slot_of(kParts, piece), part.count, data.dtype);
    }
    run_rail(collect);
  };
  const auto after = [&](std::int64_t piece) {
    if (hosts_.own_host() != root_host) return;
    Step collect = step(CollectiveKind::kGather);
    collect.signature.root = hosts_.local_index_of(root);
    collect.blocks = parts(piece);
    collect.input = scratch(slot_of(kParts, piece), collect.blocks[own_index()].count, data.dtype);
    if (scope_.rank == root) collect.output = data;
    run_local(collect);
  };
  pass(pieces_in(data.count, size), {before, across, after});
}

// In round t rail i is responsible for the block of every host's local rank t x rails + i: in the
// first round its own, later one that it hands on. A piece is a part of one round.
void HierarchicalEngine::reduce_scatter() {
  const std::vector<Block>& blocks = collective_->blocks;
  const Buffer& output = collective_->output;
  const DType wide = accumulation_dtype(output.dtype);
  const Buffer input{const_cast<void*>(collective_->input.data), collective_->input.count,
                     collective_->input.dtype};
  std::int64_t longest = 0;
  for (const Block& block : blocks) longest = std::max(longest, block.count);
  const int num_hosts = hosts_.num_hosts();
  const std::int64_t size =
      std::max<std::int64_t>(1, piece_elements(longest, output.dtype) / num_hosts);
  const std::int64_t per_round = pieces_in(longest, size);
  const std::int64_t room = std::min(size, longest);
  const std::int64_t stride = room * num_hosts;
  for (int i = 0; i < 2; ++i) {
    scratch(slot_of(kNodes, i), own_nodes() * stride, wide);
    scratch(slot_of(kShares, i), room, output.dtype);
  }
  const auto round_of = [&](std::int64_t piece) { return static_cast<int>(piece / per_round); };
  const auto block_of = [&](int host, std::int64_t piece, int rail) {
    return piece_of(block_on_rail(blocks, host, round_of(piece), rail), piece % per_round, size);
  };
  const auto nodes = [&](std::int64_t piece) {
    return scratch(slot_of(kNodes, piece), own_nodes() * stride, wide);
  };
  const auto before = [&](std::int64_t piece) {
    for (int host = 0; host < num_hosts; ++host) {
      std::vector<Block> parts;
      for (int index = 0; index < local_scope_.size(); ++index) {
        parts.push_back(block_of(host, piece, index));
      }
      const std::int64_t at = host * room;
      combine_locally(input, parts, slice(nodes(piece), {at, own_nodes() * stride - at}), stride);
    }
  };
  const auto across = [&](std::int64_t piece) {
    std::vector<Block> shares;
    for (int host = 0; host < num_hosts; ++host) {
      shares.push_back({host * room, block_of(host, piece, hosts_.own_local_index()).count});
    }
    const std::int64_t count = shares[own_host()].count;
    const Buffer share = round_of(piece) == 0
                             ? slice(output, piece_of({0, output.count}, piece % per_round, size))
                             : scratch(slot_of(kShares, piece), count, output.dtype);
    combine_along_rail(nodes(piece), shares, share, stride);
  };
  const auto after = [&](std::int64_t piece) {
    const int first = round_of(piece) * hosts_.num_rails();
    if (first == 0 || first >= local_scope_.size()) return;
    hand_on(first, output, scratch(slot_of(kShares, piece), room, output.dtype), [&](int rail) {
      return piece_of({0, block_on_rail(blocks, hosts_.own_host(), round_of(piece), rail).count},
                      piece % per_round, size);
    });
  };
  pass(per_round * rounds(), {before, across, after});
}

// Rail i gives `share` to local rank first + i, whose block has the given place in its output.
void HierarchicalEngine::hand_on(int first, const Buffer& output, const Buffer& share,
                                 const std::function<Block(int rail)>& place) {
  Step hand = step(CollectiveKind::kAllToAll);
  hand.signature.count = -1;
  hand.input = share;
  hand.output = output;
  hand.send_blocks.resize(static_cast<std::size_t>(local_scope_.size()));
  hand.blocks.resize(static_cast<std::size_t>(local_scope_.size()));
  const int own = hosts_.own_local_index();
  if (hosts_.on_rail() && first + own < local_scope_.size()) {
    hand.send_blocks[static_cast<std::size_t>(first + own)] = {0, place(own).count};
  }
  const int from = own - first;
  if (from >= 0 && from < hosts_.num_rails()) {
    hand.blocks[static_cast<std::size_t>(from)] = place(from);
  }
  run_local(hand);
}

}  // namespace trireme
