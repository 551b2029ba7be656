// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Collectives of ranks on several hosts, built from engines for fewer ranks: one inside each host,
// one along each rail (host_map.h), and one between all ranks for what cannot be shared. The idea:
// what is the same for all ranks of a host crosses the network once, cut over the rails, and is
// spread inside. docs/collectives.md has the steps and bytes.
//
// Large operations are cut into pieces. While the rail carries one piece, on a thread of its own,
// the host works on its neighbours: before(p + 1), after(p - 1).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/engine.h"
#include "trireme/comm/hierarchy/host_map.h"
#include "trireme/comm/hierarchy/rail_worker.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme {

class HierarchicalEngine final : public Engine {
 public:
  HierarchicalEngine(const GroupScope& scope, EngineFactory between);

  std::string_view name() const override { return name_; }
  void run(const Collective& collective, const Deadline& deadline) override;
  void send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline) override;
  void receive(const MessageKey& key, const Buffer& data, const Deadline& deadline) override;
  void exchange(const MessageKey& out_key, const ConstBuffer& out, const MessageKey& in_key,
                const Buffer& in, const Deadline& deadline) override;
  std::int64_t bytes_sent() const override;
  std::int64_t bytes_sent_between_hosts() const override;

 private:
  // Pieces of one operation that pass through three stages. across runs on rails only.
  struct Stages {
    std::function<void(std::int64_t piece)> before;
    std::function<void(std::int64_t piece)> across;
    std::function<void(std::int64_t piece)> after;
  };
  // One step of the operation inside this host, along the rail.
  using Step = Collective;

  void dispatch();
  void pass(std::int64_t pieces, const Stages& stages);
  Step step(CollectiveKind kind) const;
  void run_local(const Step& step);
  void run_rail(const Step& step);

  void barrier();
  void all_reduce();
  void reduce();
  void reduce_scatter();
  void all_gather();
  void broadcast();
  void gather();
  void scatter();
  void all_to_all();

  // Reductions: the tree's nodes of every host, and how they are combined along the rails.
  PartialReduction local_partial(std::int64_t output_stride) const;
  PartialReduction rail_partial(std::int64_t input_stride) const;
  void combine_locally(const Buffer& data, const std::vector<Block>& parts, const Buffer& nodes,
                       std::int64_t stride);
  void combine_along_rail(const ConstBuffer& nodes, const std::vector<Block>& shares,
                          const Buffer& output, std::int64_t stride);
  void hand_on(int first, const Buffer& output, const Buffer& share,
               const std::function<Block(int rail)>& place);
  std::int64_t own_nodes() const { return static_cast<std::int64_t>(covers_[own_host()].size()); }

  // Cuts.
  std::int64_t piece_elements(std::int64_t count, DType dtype) const;
  int rails_for(std::int64_t bytes) const;
  // A range in parts for the first `rails` local ranks; the others' are empty.
  std::vector<Block> local_parts(const Block& range, int rails) const;
  // A range in shares for the hosts.
  std::vector<Block> host_shares(const Block& range) const;
  std::size_t own_host() const { return static_cast<std::size_t>(hosts_.own_host()); }
  std::size_t own_index() const { return static_cast<std::size_t>(hosts_.own_local_index()); }
  // What rail i carries in a round: the block of the host's local rank round x rails + i.
  int rounds() const;
  Block block_on_rail(const std::vector<Block>& blocks, int host, int round, int rail) const;
  std::vector<Block> local_blocks(const std::vector<Block>& blocks) const;
  std::vector<Block> distant_blocks(const std::vector<Block>& blocks, int host) const;

  Buffer scratch(std::size_t slot, std::int64_t count, DType dtype);

  // Constant after construction.
  const GroupScope& scope_;
  const HostMap hosts_;
  const GroupScope local_scope_;
  const GroupScope rail_scope_;
  const std::unique_ptr<Engine> local_;
  const std::unique_ptr<Engine> rail_;  // null off the rails
  const std::unique_ptr<Engine> pairs_;
  const std::string name_;
  const std::vector<std::vector<TreeNode>> covers_;  // by host: the nodes that its ranks form

  // Of the operation under way.
  const Collective* collective_ = nullptr;
  Deadline deadline_ = Deadline::after({});
  std::vector<std::vector<std::byte>> scratch_;
  RailWorker rail_worker_;
};

}  // namespace trireme
