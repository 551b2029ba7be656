// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Operations between hosts that move and do not reduce. What many ranks of a host need crosses the
// network once; what one rank has for another goes straight between the two.

#include "trireme/comm/hierarchy/hierarchical_engine.h"
#include "trireme/comm/hierarchy/slices.h"

namespace trireme {

void HierarchicalEngine::barrier() {
  const Step meet = step(CollectiveKind::kBarrier);
  run_local(meet);
  if (hosts_.own_local_index() == 0) run_rail(meet);
  run_local(meet);
}

// The root cuts the data over the rails of its host, each rail carries its part to all hosts, and
// there the parts are gathered.
void HierarchicalEngine::broadcast() {
  const Buffer& data = collective_->output;
  const int root = collective_->signature.root;
  const int root_host = hosts_.host_of(root);
  const int rails = rails_for(static_cast<std::int64_t>(data.bytes()));
  const std::int64_t size = piece_elements(data.count, data.dtype);
  const auto parts = [&](std::int64_t piece) {
    return local_parts(piece_of({0, data.count}, piece, size), rails);
  };
  const auto before = [&](std::int64_t piece) {
    if (hosts_.own_host() != root_host) return;
    Step cut = step(CollectiveKind::kScatter);
    cut.signature.root = hosts_.local_index_of(root);
    cut.blocks = parts(piece);
    if (scope_.rank == root) cut.input = data;
    cut.output = slice(data, cut.blocks[own_index()]);
    run_local(cut);
  };
  const auto across = [&](std::int64_t piece) {
    if (hosts_.own_local_index() >= rails) return;
    Step carry = step(CollectiveKind::kBroadcast);
    carry.signature.root = root_host;
    carry.output = slice(data, parts(piece)[own_index()]);
    carry.signature.count = carry.output.count;
    run_rail(carry);
  };
  const auto after = [&](std::int64_t piece) {
    Step spread = step(CollectiveKind::kAllGather);
    spread.signature.root = -1;
    spread.blocks = parts(piece);
    spread.input = slice(data, spread.blocks[own_index()]);
    spread.output = data;
    run_local(spread);
  };
  pass(pieces_in(data.count, size), {before, across, after});
}

// A host gathers its own blocks; in round t rail i carries the block of every host's local rank
// t x rails + i; then each host's blocks are spread inside the others.
void HierarchicalEngine::all_gather() {
  const std::vector<Block>& blocks = collective_->blocks;
  const ConstBuffer& input = collective_->input;
  const Buffer& output = collective_->output;
  std::int64_t longest = 0;
  for (const Block& block : blocks) longest = std::max(longest, block.count);
  const std::int64_t size = piece_elements(longest, output.dtype);
  const auto block_of = [&](int host, int round, int rail, std::int64_t piece) {
    return piece_of(block_on_rail(blocks, host, round, rail), piece, size);
  };
  const auto before = [&](std::int64_t piece) {
    Step collect = step(CollectiveKind::kAllGather);
    collect.input = slice(input, piece_of({0, input.count}, piece, size));
    collect.output = output;
    collect.blocks = pieces_of(local_blocks(blocks), piece, size);
    run_local(collect);
  };
  const auto across = [&](std::int64_t piece) {
    for (int round = 0; round < rounds(); ++round) {
      Step carry = step(CollectiveKind::kAllGather);
      for (int host = 0; host < hosts_.num_hosts(); ++host) {
        carry.blocks.push_back(block_of(host, round, hosts_.own_local_index(), piece));
      }
      carry.input = slice(output, carry.blocks[own_host()]);
      carry.output = output;
      run_rail(carry);
    }
  };
  const auto after = [&](std::int64_t piece) {
    for (int host = 0; host < hosts_.num_hosts(); ++host) {
      const int host_rounds =
          (hosts_.num_ranks_on(host) + hosts_.num_rails() - 1) / hosts_.num_rails();
      for (int round = 0; round < host_rounds && host != hosts_.own_host(); ++round) {
        Step spread = step(CollectiveKind::kAllGather);
        for (int index = 0; index < local_scope_.size(); ++index) {
          spread.blocks.push_back(block_of(host, round, index, piece));
        }
        spread.input = slice(output, spread.blocks[own_index()]);
        spread.output = output;
        run_local(spread);
      }
    }
  };
  pass(pieces_in(longest, size), {before, across, after});
}

void HierarchicalEngine::gather() {
  const int root = collective_->signature.root;
  const bool beside_root = hosts_.host_of(root) == hosts_.own_host();
  if (beside_root) {
    Step near = step(CollectiveKind::kGather);
    near.signature.root = hosts_.local_index_of(root);
    near.input = collective_->input;
    near.output = collective_->output;
    near.blocks = local_blocks(collective_->blocks);
    run_local(near);
  }
  Step far = step(CollectiveKind::kGather);
  far.input = collective_->input;
  if (beside_root) far.input.count = 0;
  far.output = collective_->output;
  far.blocks = distant_blocks(collective_->blocks, hosts_.host_of(root));
  pairs_->run(far, deadline_);
}

void HierarchicalEngine::scatter() {
  const int root = collective_->signature.root;
  const bool beside_root = hosts_.host_of(root) == hosts_.own_host();
  if (beside_root) {
    Step near = step(CollectiveKind::kScatter);
    near.signature.root = hosts_.local_index_of(root);
    near.input = collective_->input;
    near.output = collective_->output;
    near.blocks = local_blocks(collective_->blocks);
    run_local(near);
  }
  Step far = step(CollectiveKind::kScatter);
  far.input = collective_->input;
  far.output = collective_->output;
  if (beside_root) far.output.count = 0;
  far.blocks = distant_blocks(collective_->blocks, hosts_.host_of(root));
  pairs_->run(far, deadline_);
}

void HierarchicalEngine::all_to_all() {
  Step near = step(CollectiveKind::kAllToAll);
  near.input = collective_->input;
  near.output = collective_->output;
  near.send_blocks = local_blocks(collective_->send_blocks);
  near.blocks = local_blocks(collective_->blocks);
  run_local(near);
  Step far = step(CollectiveKind::kAllToAll);
  far.input = collective_->input;
  far.output = collective_->output;
  far.send_blocks = distant_blocks(collective_->send_blocks, hosts_.own_host());
  far.blocks = distant_blocks(collective_->blocks, hosts_.own_host());
  pairs_->run(far, deadline_);
}

}  // namespace trireme
