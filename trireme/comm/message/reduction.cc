// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/message/reduction.h"

#include <algorithm>

#include "trireme/base/check.h"

namespace trireme {
namespace {

constexpr Lane kScatterLane{Lane::Purpose::kScatter};
constexpr Lane kGatherLane{Lane::Purpose::kGather};

std::size_t bytes_of(std::int64_t count, DType dtype) {
  return static_cast<std::size_t>(count) * dtype_bytes(dtype);
}

PartialReduction one_vector_per_rank(int n) {
  PartialReduction whole;
  whole.leaves = n;
  for (int rank = 0; rank < n; ++rank) whole.inputs.push_back({{rank, rank + 1}});
  whole.outputs = {{0, n}};
  whole.finish = true;
  return whole;
}

// Who reduces what. Between two ranks a reduce has nothing to gain from reducing a half at the
// other rank.
std::vector<Block> blocks_of(const GroupScope& scope, const Collective& collective) {
  const Signature& signature = collective.signature;
  if (signature.kind == CollectiveKind::kReduceScatter) return collective.blocks;
  const int n = scope.size();
  if (signature.kind == CollectiveKind::kAllReduce || n > 2) {
    return even_parts(collective.output.count, n);
  }
  std::vector<Block> blocks(static_cast<std::size_t>(n));
  blocks[static_cast<std::size_t>(signature.root)] = {0, collective.output.count};
  return blocks;
}

}  // namespace

Reduction::Reduction(MessageState& state)
    : state_(state), whole_(one_vector_per_rank(state.scope.size())) {
  for (auto& scratch : incoming_) scratch = state.memory->make_scratch();
  for (auto& scratch : reduced_) scratch = state.memory->make_scratch();
}

void Reduction::run(const Collective& collective, const Deadline& deadline) {
  plan(collective);
  std::size_t most_vectors = 0;
  for (int rank = 0; rank < state_.scope.size(); ++rank) {
    most_vectors = std::max(most_vectors, num_vectors(rank));
  }
  std::int64_t longest = 0;
  for (int rank = 0; rank < state_.scope.size(); ++rank) {
    longest = std::max(longest, slices_.block(rank).count);
  }
  const bool scatters = collective.signature.kind == CollectiveKind::kReduceScatter;
  const std::int64_t to_each = scatters ? longest : collective.output.count;
  if (state_.is_small(bytes_of(to_each, in_.dtype) * most_vectors)) return run_small(deadline);
  run_slices(deadline);
}

void Reduction::plan(const Collective& collective) {
  collective_ = &collective;
  const bool scatters = collective.signature.kind == CollectiveKind::kReduceScatter;
  partial_ = collective.partial != nullptr ? collective.partial : &whole_;
  in_ = scatters ? collective.input : ConstBuffer(collective.output);
  plan_inputs();
  const std::size_t slice_bytes = kStepBytes / std::max<std::size_t>(1, inputs_.size());
  slices_ = Slices(blocks_of(state_.scope, collective),
                   static_cast<std::int64_t>(slice_bytes / dtype_bytes(in_.dtype)));
}

void Reduction::plan_inputs() {
  inputs_.clear();
  first_vector_.clear();
  for (int rank = 0; rank < state_.scope.size(); ++rank) {
    first_vector_.push_back(inputs_.size());
    const auto& nodes = partial_->inputs[static_cast<std::size_t>(rank)];
    for (std::size_t vector = 0; vector < nodes.size(); ++vector) {
      inputs_.push_back({nodes[vector], rank, vector});
    }
  }
  std::sort(inputs_.begin(), inputs_.end(),
            [](const Input& a, const Input& b) { return a.node.begin < b.node.begin; });
  nodes_.clear();
  for (const Input& input : inputs_) nodes_.push_back(input.node);
  of_output_.clear();
  for (const TreeNode& output : partial_->outputs) {
    const auto before = [](const TreeNode& node, int leaf) { return node.begin < leaf; };
    const auto first = std::lower_bound(nodes_.begin(), nodes_.end(), output.begin, before);
    const auto last = std::lower_bound(first, nodes_.end(), output.end, before);
    of_output_.emplace_back(first - nodes_.begin(), last - nodes_.begin());
  }
}

bool Reduction::wants_result(int rank) const {
  const Signature& signature = collective_->signature;
  return signature.kind == CollectiveKind::kAllReduce ||
         (signature.kind == CollectiveKind::kReduce && signature.root == rank);
}

std::span<const std::byte> Reduction::input(std::size_t vector, const Block& slice) const {
  const std::int64_t begin =
      static_cast<std::int64_t>(vector) * partial_->input_stride + slice.offset;
  return {static_cast<const std::byte*>(in_.data) + bytes_of(begin, in_.dtype),
          bytes_of(slice.count, in_.dtype)};
}

std::span<std::byte> Reduction::data(const Block& slice) const {
  const Buffer& all = collective_->output;
  return {static_cast<std::byte*>(all.data) + bytes_of(slice.offset, all.dtype),
          bytes_of(slice.count, all.dtype)};
}

std::byte* Reduction::result(std::size_t output, const Block& slice, std::byte* reduced) const {
  const Buffer& all = collective_->output;
  if (collective_->signature.kind == CollectiveKind::kReduceScatter) {
    const std::int64_t begin = static_cast<std::int64_t>(output) * partial_->output_stride +
                               slice.offset - slices_.block(state_.scope.rank).offset;
    return static_cast<std::byte*>(all.data) + bytes_of(begin, all.dtype);
  }
  return wants_result(state_.scope.rank) ? data(slice).data() : reduced;
}

template <class Find, class Out>
void Reduction::reduce(std::int64_t count, Find find, Out out) {
  if (count == 0) return;
  places_.clear();
  for (const Input& input : inputs_) places_.push_back(find(input));
  for (std::size_t output = 0; output < of_output_.size(); ++output) {
    const auto [first, last] = of_output_[output];
    NodeReduction reduction;
    reduction.leaves = partial_->leaves;
    reduction.nodes = std::span(nodes_).subspan(first, last - first);
    reduction.in_dtype = in_.dtype;
    reduction.out_dtype = collective_->output.dtype;
    reduction.op = collective_->signature.op;
    reduction.finish = partial_->finish;
    state_.memory->reduce(reduction, std::span(places_).subspan(first, last - first), out(output),
                          count);
  }
}

void Reduction::run_small(const Deadline& deadline) {
  const int rank = state_.scope.rank;
  const CollectiveKind kind = collective_->signature.kind;
  const Block all{0, collective_->output.count};
  const auto block_for = [&](int peer) {
    return kind == CollectiveKind::kReduceScatter ? slices_.block(peer) : all;
  };
  const auto enclose = [&](int to, int peer) {
    std::size_t size = 0;
    for (std::size_t vector = 0; vector < num_vectors(rank); ++vector) {
      state_.enclose(to, size, input(vector, block_for(peer)));
    }
    return size;
  };
  if (kind == CollectiveKind::kAllReduce) {
    const std::size_t size = enclose(rank, rank);
    state_.greetings.give_all_the_same();
    state_.for_each_peer([&](int peer) { state_.count_sent(peer, size); });
  } else {
    state_.for_each_peer([&](int peer) {
      if (kind == CollectiveKind::kReduceScatter || wants_result(peer)) {
        state_.count_sent(peer, enclose(peer, peer));
      }
    });
  }
  state_.greetings.meet(collective_->identity(), deadline);
  if (kind == CollectiveKind::kReduce && !wants_result(rank)) return;
  const Block own = block_for(rank);
  reduce(
      own.count,
      [&](const Input& from) -> const std::byte* {
        if (from.rank == rank) return input(from.vector, own).data();
        return state_.greetings.from(from.rank).data + from.vector * bytes_of(own.count, in_.dtype);
      },
      [&](std::size_t output) { return result(output, own, nullptr); });
}

void Reduction::run_slices(const Deadline& deadline) {
  state_.greetings.meet(collective_->identity(), deadline);
  const OperationName name(collective_->identity());
  const std::int64_t longest =
      std::min(slices_.longest_slice(), slices_.block(state_.scope.rank).count);
  const std::size_t incoming_bytes = bytes_of(longest, in_.dtype) * inputs_.size();
  const bool passes_on =
      collective_->signature.kind == CollectiveKind::kReduce && !wants_result(state_.scope.rank);
  std::byte* incoming[kStepsUnderWay];
  std::byte* reduced[kStepsUnderWay];
  std::unique_ptr<Flight> scattering[kStepsUnderWay];
  std::unique_ptr<Flight> gathering[kStepsUnderWay];
  for (int i = 0; i < kStepsUnderWay; ++i) {
    incoming[i] = incoming_[i]->reserve(incoming_bytes);
    reduced[i] = reduced_[i]->reserve(passes_on ? bytes_of(longest, in_.dtype) : 0);
    scattering[i] = state_.payload->make_flight();
    gathering[i] = state_.payload->make_flight();
  }
  pipeline(
      slices_.steps(),
      [&](std::int64_t s) {
        scatter(*scattering[s % kStepsUnderWay], s, incoming[s % kStepsUnderWay]);
      },
      [&](std::int64_t s) {
        scattering[s % kStepsUnderWay]->wait(name, deadline);
        combine(s, incoming[s % kStepsUnderWay], reduced[s % kStepsUnderWay]);
      },
      [&](std::int64_t s) {
        gather(*gathering[s % kStepsUnderWay], s, reduced[s % kStepsUnderWay]);
      },
      [&](std::int64_t s) { gathering[s % kStepsUnderWay]->wait(name, deadline); });
}

// Places in incoming are numbered like inputs by rank; this rank's own stay empty.
void Reduction::scatter(Flight& flight, std::int64_t step, std::byte* incoming) {
  const Block own = slices_.slice(step, state_.scope.rank);
  const std::size_t own_bytes = bytes_of(own.count, in_.dtype);
  state_.for_each_peer([&](int peer) {
    const std::size_t first = first_vector_[static_cast<std::size_t>(peer)];
    for (std::size_t vector = 0; vector < num_vectors(peer); ++vector) {
      flight.receive(peer, kScatterLane, incoming + (first + vector) * own_bytes, own_bytes);
    }
  });
  state_.for_each_peer([&](int peer) {
    const Block theirs = slices_.slice(step, peer);
    for (std::size_t vector = 0; vector < num_vectors(state_.scope.rank); ++vector) {
      state_.send(flight, peer, kScatterLane, input(vector, theirs));
    }
  });
}

void Reduction::combine(std::int64_t step, const std::byte* incoming, std::byte* reduced) {
  const Block own = slices_.slice(step, state_.scope.rank);
  reduce(
      own.count,
      [&](const Input& from) -> const std::byte* {
        if (from.rank == state_.scope.rank) return input(from.vector, own).data();
        const std::size_t place = first_vector_[static_cast<std::size_t>(from.rank)] + from.vector;
        return incoming + place * bytes_of(own.count, in_.dtype);
      },
      [&](std::size_t output) { return result(output, own, reduced); });
}

void Reduction::gather(Flight& flight, std::int64_t step, std::byte* reduced) {
  if (collective_->signature.kind == CollectiveKind::kReduceScatter) return;
  const int rank = state_.scope.rank;
  if (wants_result(rank)) {
    state_.for_each_peer([&](int peer) {
      const std::span<std::byte> theirs = data(slices_.slice(step, peer));
      flight.receive(peer, kGatherLane, theirs.data(), theirs.size());
    });
  }
  const Block own = slices_.slice(step, rank);
  const std::span<const std::byte> mine(result(0, own, reduced), bytes_of(own.count, in_.dtype));
  state_.for_each_peer([&](int peer) {
    if (wants_result(peer)) state_.send(flight, peer, kGatherLane, mine);
  });
}

}  // namespace trireme
