// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/parameter_memory.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/train/activation_sizes.h"

namespace trireme {
namespace {

using enum MemoryCategory;

constexpr std::int64_t kF32Bytes = 4;

std::int64_t div_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t aligned_sum(std::initializer_list<std::int64_t> parameters) {
  std::int64_t elements = 0;
  for (const std::int64_t count : parameters) {
    elements += div_up(count, FlatParameters::kAlignment) * FlatParameters::kAlignment;
  }
  return elements;
}

// Of the MLP of a block, or what stands in its place.
struct MlpElements {
  std::int64_t hidden_matrices = 0, other_matrices = 0, biases = 0;
  std::int64_t rows_and_columns = 0;  // of all matrices
};

// `stack` MLPs with F hidden elements in one parameter each matrix; an MLP by itself is one.
MlpElements mlp_elements(const nn::ModelConfig& c, std::int64_t F, std::int64_t stack) {
  const std::int64_t C = c.width, matrices = c.is_gpt2() ? 2 : 3;
  MlpElements elements;
  elements.hidden_matrices = matrices * aligned_sum({stack * F * C});
  elements.biases = c.is_gpt2() ? aligned_sum({stack * F, stack * C}) : 0;
  elements.rows_and_columns =
      stack == 1 ? matrices * (F + C) : matrices * (stack + F * C);  // [first dim, rest]
  return elements;
}

MlpElements mixture_elements(const nn::ModelConfig& c, std::int64_t experts) {
  const nn::ExpertsConfig& e = c.experts;
  MlpElements elements = mlp_elements(c, e.width, experts);
  elements.other_matrices = aligned_sum({e.count * c.width});
  elements.rows_and_columns += e.count + c.width;
  if (e.shared == 0) return elements;
  const MlpElements shared = mlp_elements(c, e.shared * e.width, 1);
  elements.hidden_matrices += shared.hidden_matrices;
  elements.biases += shared.biases;
  elements.rows_and_columns += shared.rows_and_columns;
  return elements;
}

// Buffers of gradients that a rank comes to have: the steps of TrainStep and GradientTree, with
// numbers in the place of tensors. A buffer is never freed.
class GradientBuffers {
 public:
  static std::int64_t count(const MicroBatchPlan& plan) {
    GradientBuffers buffers;
    std::vector<MicroBatchRange> rounds = plan.rounds(0);
    std::reverse(rounds.begin(), rounds.end());
    for (const MicroBatchRange& round : rounds) buffers.run(round.end - round.begin);
    return buffers.made_;
  }

 private:
  void run(std::int64_t micro_batches) {
    for (std::int64_t m = 0; m < micro_batches; ++m) {
      free_ > 0 ? --free_ : ++made_;
      heights_.push_back(0);
      while (heights_.size() >= 2 && *(heights_.end() - 2) == heights_.back()) {
        heights_.pop_back();
        ++heights_.back();
        ++free_;
      }
    }
    heights_.clear();  // the sum is on its way until the step ends
  }

  std::int64_t made_ = 0;
  std::int64_t free_ = 0;
  std::vector<int> heights_;
};

// Ranks whose gradients are summed, and their passes in a step.
std::int64_t replicas(const TrainConfig& config, const JobShape& job) {
  const ParallelConfig& parallel = config.parallel;
  return std::max<std::int64_t>(1, job.ranks / (parallel.pp * parallel.ep * parallel.tp));
}
std::int64_t passes(const TrainConfig& config) {
  return config.batch.micro_batches * config.parallel.cp / config.parallel.ep;
}

// Sums of gradients that a rank comes to have of the pieces of a step's micro-batches.
std::int64_t shard_sums(const TrainConfig& config, const JobShape& job) {
  const auto mine = static_cast<std::uint64_t>(passes(config) / replicas(config, job));
  return mine <= 1 ? 1 : std::bit_width(mine - 1) + 2;
}

// That keep one copy of the model between them.
std::int64_t ranks_to_a_copy(const TrainConfig& config, const JobShape& job) {
  if (config.parallel.shard_ranks == kHostRanks) {
    return std::max<std::int64_t>(1, job.local_ranks / (config.parallel.ep * config.parallel.tp));
  }
  return config.parallel.shard_ranks > 0 ? config.parallel.shard_ranks : replicas(config, job);
}

}  // namespace

OwnedParameters whole_model(const nn::ModelConfig& config) {
  return {.begin = 0,
          .end = config.layers,
          .matrices = config.tied() ? 1 : 2,
          .positions = config.is_gpt2(),
          .final_norm = true};
}

OwnedParameters blocks_of_stage(const nn::ModelConfig& config, const nn::TransformerPart& part) {
  return {.begin = part.begin,
          .end = part.end,
          .matrices = part.embedding && !config.tied() ? 1 : 0,
          .positions = part.embedding && config.is_gpt2(),
          .final_norm = part.head};
}

FlatElements flat_elements(const TrainConfig& config, const OwnedParameters& owned) {
  const nn::ModelConfig& c = config.model;
  const LargestPart part(c, config.parallel.tp);
  const auto whole = [](std::int64_t n) { return div_up(n, kShardBlock) * kShardBlock; };
  const std::int64_t C = c.width, HD = part.q_width, KD = part.kv_width;
  const std::int64_t norm = (c.is_gpt2() ? 2 : 1) * aligned_sum({C});
  const std::int64_t attention = aligned_sum({HD * C, KD * C, KD * C, C * HD});
  const std::int64_t biases = c.is_gpt2() ? aligned_sum({HD, KD, KD, C}) : 0;
  FlatElements flat;
  const std::int64_t positions = owned.positions ? c.context : 0;
  flat.kinds.other_matrices =
      owned.matrices * aligned_sum({part.vocab_size * C}) + aligned_sum({positions * C});
  // Each of these begins at a block.
  const int final_vectors = owned.final_norm ? (c.is_gpt2() ? 2 : 1) : 0;
  flat.rest =
      owned.matrices * whole(part.vocab_size * C) + whole(positions * C) + final_vectors * whole(C);
  flat.kinds.rows_and_columns =
      owned.matrices * (c.vocab_size + C) + (owned.positions ? positions + C : 0);
  const auto add_blocks = [&](std::int64_t count, const MlpElements& mlp) {
    if (count == 0) return;
    const std::int64_t block = whole(2 * norm + attention + biases + mlp.hidden_matrices +
                                     mlp.other_matrices + mlp.biases);
    flat.block = std::max(flat.block, block);
    flat.blocks += count * block;
    flat.kinds.hidden_matrices += count * (attention + mlp.hidden_matrices);
    flat.kinds.other_matrices += count * mlp.other_matrices;
    flat.kinds.rows_and_columns += count * (2 * (C + C) + 2 * (KD + C) + mlp.rows_and_columns);
  };
  std::int64_t sparse = 0;
  for (std::int64_t layer = owned.begin; layer < owned.end; ++layer) {
    sparse += c.experts.in_layer(layer) ? 1 : 0;
  }
  add_blocks(owned.end - owned.begin - sparse, mlp_elements(c, part.mlp_width, 1));
  const MlpElements stacks =
      mlp_elements(c, c.experts.width, div_up(c.experts.count, config.parallel.ep));
  flat.experts = sparse * (stacks.hidden_matrices + stacks.biases);
  add_blocks(sparse, mixture_elements(c, div_up(c.experts.count, config.parallel.ep)));
  flat.kinds.vectors = flat.all() - flat.kinds.hidden_matrices - flat.kinds.other_matrices;
  return flat;
}

MemorySplit parameter_memory(const TrainConfig& config, const JobShape& job,
                             const OwnedParameters& owned) {
  const FlatElements flat = flat_elements(config, owned);
  const std::int64_t stage = config.parallel.shard;
  const std::int64_t copy_bytes = config.train.dtype == "bf16" ? 2 : 0;
  const std::int64_t sharers = ranks_to_a_copy(config, job);
  const std::int64_t all = flat.all(), share = div_up(all, sharers);
  MemorySplit memory;
  // In f32 the weights that compute are those that the optimizer updates.
  memory[kWeights] = copy_bytes == 0 ? (stage == 3 ? share : all) * kF32Bytes
                                     : (stage == 0 ? all : share) * kF32Bytes +
                                           (stage == 3 ? share : all) * copy_bytes;
  memory[kGradients] =
      kF32Bytes * (stage < 2 ? all * GradientBuffers::count(MicroBatchPlan(
                                         passes(config), static_cast<int>(replicas(config, job))))
                             : share * shard_sums(config, job));
  const std::int64_t state = optim::optimizer_state_bytes(config.optimizer, flat.kinds);
  // Parameter servers keep it in place of the workers.
  memory[kOptimizer] = config.parallel.ps.servers > 0
                           ? 0
                           : (stage == 0 ? state : div_up(state, sharers)) +
                                 optim::replicated_state_bytes(config.optimizer, flat.kinds);
  if (config.train.average_decay > 0) memory[kOptimizer] += kF32Bytes * (stage == 0 ? all : share);
  // Gradients that are summed or on their way, and weights that are gathered.
  if (stage >= 2) memory[kWorkspace] += kF32Bytes * (flat.rest + 4 * flat.block);
  // All that is not experts, to be summed over ep.
  if (config.parallel.ep > 1) {
    memory[kWorkspace] += kF32Bytes * (all - flat.experts);
  }
  if (stage == 3) {
    // A stage of a pipeline holds all of its own while it has micro-batches.
    const std::int64_t gathered =
        config.parallel.pp > 1 ? all : flat.rest + (2 + config.parallel.prefetch) * flat.block;
    memory[kWorkspace] += (copy_bytes == 0 ? kF32Bytes : copy_bytes) * gathered;
  }
  return memory;
}

}  // namespace trireme
