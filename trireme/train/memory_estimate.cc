// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/memory_estimate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_kernels.h"
#include "trireme/ops/kernels/norm_kernels.h"
#include "trireme/ops/loss.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/parallel/tensor/tensor_plan.h"
#include "trireme/topology/host.h"

namespace trireme {
namespace {

using enum MemoryCategory;
using nn::Recompute;

constexpr std::int64_t kF32Bytes = 4, kI64Bytes = 8;

std::int64_t div_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Elements of the flat buffers: each parameter begins at a multiple of their alignment, each unit
// at a block.
struct FlatElements {
  std::int64_t rest = 0;       // what belongs to no block of the model
  std::int64_t block = 0;      // of the largest block of the model
  std::int64_t blocks = 0;     // of all
  std::int64_t experts = 0;    // of them, of experts
  optim::StateElements kinds;  // of all of it; gaps count as vectors
  std::int64_t all() const { return rest + blocks; }
};

// What tensor parallelism leaves of a model on the rank that has most.
struct LargestPart {
  std::int64_t heads, kv_heads;
  std::int64_t q_width, kv_width, mlp_width, vocab_size;

  LargestPart(const nn::ModelConfig& c, std::int64_t tp) {
    const std::int64_t D = c.head_width();
    const AttentionHeads all{c.heads, c.kv_heads, D};
    const auto largest = [&](std::int64_t size, const TensorRule& rule) {
      std::int64_t most = 0;
      for (int rank = 0; rank < tp; ++rank) {
        const DimPart part = dim_part(rule, rule.pattern, size, rank, static_cast<int>(tp));
        most = std::max(most, part.end - part.begin);
      }
      return most;
    };
    q_width = largest(c.width, {"attn.q", TensorCut::kOutputs, all});
    kv_width = largest(c.kv_heads * D, {"attn.k", TensorCut::kOutputs, all, true});
    mlp_width = largest(c.mlp_width, {"mlp.up", TensorCut::kOutputs});
    vocab_size = largest(c.vocab_size, {"token_embedding", TensorCut::kVocabulary});
    heads = q_width / D;
    kv_heads = kv_width / D;
  }
};

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

FlatElements flat_elements(const TrainConfig& config) {
  const nn::ModelConfig& c = config.model;
  const LargestPart part(c, config.parallel.tp);
  const auto whole = [](std::int64_t n) { return div_up(n, kShardBlock) * kShardBlock; };
  const std::int64_t C = c.width, HD = part.q_width, KD = part.kv_width;
  const std::int64_t norm = (c.is_gpt2() ? 2 : 1) * aligned_sum({C});
  const std::int64_t attention = aligned_sum({HD * C, KD * C, KD * C, C * HD});
  const std::int64_t biases = c.is_gpt2() ? aligned_sum({HD, KD, KD, C}) : 0;
  FlatElements flat;
  flat.kinds.other_matrices = (c.tied() ? 1 : 2) * aligned_sum({part.vocab_size * C}) +
                              (c.is_gpt2() ? aligned_sum({c.context * C}) : 0);
  // Each of these begins at a block.
  flat.rest = (c.tied() ? 1 : 2) * whole(part.vocab_size * C) +
              (c.is_gpt2() ? whole(c.context * C) + 2 * whole(C) : whole(C));
  flat.kinds.rows_and_columns =
      (c.tied() ? 1 : 2) * (c.vocab_size + C) + (c.is_gpt2() ? c.context + C : 0);
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
  const std::int64_t sparse = c.experts.num_layers(c.layers);
  add_blocks(c.layers - sparse, mlp_elements(c, part.mlp_width, 1));
  const MlpElements stacks =
      mlp_elements(c, c.experts.width, div_up(c.experts.count, config.parallel.ep));
  flat.experts = sparse * (stacks.hidden_matrices + stacks.biases);
  add_blocks(sparse, mixture_elements(c, div_up(c.experts.count, config.parallel.ep)));
  flat.kinds.vectors = flat.all() - flat.kinds.hidden_matrices - flat.kinds.other_matrices;
  return flat;
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

// Tokens of a micro-batch that a rank has.
std::int64_t rows_of(const TrainConfig& config) {
  return config.batch.micro_batch_size * div_up(config.model.context, config.parallel.cp);
}

// Bytes of the tensors of a step by what they hold.
struct TensorBytes {
  std::int64_t element;
  std::int64_t stream;         // [B, T, C], with sequence parallelism this rank's rows of it
  std::int64_t all_rows;       // of it
  std::int64_t q;              // queries, or what attention makes of them
  std::int64_t kv;             // keys, or values
  std::int64_t hidden;         // [B, T, F]
  std::int64_t moments;        // what a norm keeps of its rows: f32
  std::int64_t log_sums;       // what attention keeps: f32
  std::int64_t norm_partials;  // of the gradients of a norm's parameters
  std::int64_t logits;         // of a block of rows, with their gradient
  std::int64_t head_gradient;  // f32
  std::int64_t whole_step;     // batch and rotary table
  std::int64_t mlp_kept;       // hidden values and those before the nonlinearity
  std::int64_t mlp_gradients;  // before the nonlinearity
  std::int64_t gathered;       // all rows of it where the stream has its own; else nothing
  // What attention across ranks needs while it goes backward, beside what it does on one.
  std::int64_t across = 0;
  std::int64_t mixture_kept = 0;       // with experts, in the place of an MLP's
  std::int64_t mixture_gradients = 0;  // likewise

  explicit TensorBytes(const TrainConfig& config) {
    const nn::ModelConfig& c = config.model;
    const LargestPart part(c, config.parallel.tp);
    const bool bf16 = config.train.dtype == "bf16", gpt2 = c.is_gpt2();
    const std::int64_t rows = rows_of(config);
    const std::int64_t own = config.parallel.sequence ? div_up(rows, config.parallel.tp) : rows;
    element = bf16 ? 2 : 4;
    stream = own * c.width * element;
    all_rows = rows * c.width * element;
    gathered = config.parallel.sequence ? all_rows : 0;
    q = rows * part.q_width * element;
    kv = rows * part.kv_width * element;
    hidden = rows * part.mlp_width * element;
    if (config.parallel.cp > 1) {
      // Round the ring: keys and values of two others, gradients in f32 of the queries and four
      // times of keys and values. Else the messages of an exchange.
      across = config.parallel.cp_method == "ring" ? 4 * kv + (q + 8 * kv) / element * kF32Bytes
                                                   : 2 * q + 2 * kv;
    }
    moments = own * (gpt2 ? 2 : 1) * kF32Bytes;
    log_sums = rows * part.heads * kF32Bytes;
    norm_partials = ops::norm_blocks(own) * 2 * c.width * kF32Bytes;
    logits = std::min(ops::kLossRows, rows) * part.vocab_size * (kF32Bytes + (bf16 ? element : 0));
    head_gradient = part.vocab_size * c.width * kF32Bytes;
    whole_step = 2 * rows * kI64Bytes + (gpt2 ? 0 : c.context * c.head_width() * kF32Bytes);
    const bool again = config.compute.recompute_mode() == Recompute::kActivations;
    mlp_kept = ((gpt2 ? 2 : 3) - (again ? 1 : 0)) * hidden;
    mlp_gradients = (gpt2 ? 1 : 2) * hidden + (gpt2 || !bf16 ? 0 : all_rows);
    if (c.experts.count > 0) add_mixture(c, rows, again);
  }

  // Kept: rows by expert, before and after the experts, what these and the shared ones keep, the
  // router's scores and what becomes of them. Backward the shared ones go first, then the experts,
  // whose results are gone by then.
  void add_mixture(const nn::ModelConfig& c, std::int64_t rows, bool again) {
    const nn::ExpertsConfig& e = c.experts;
    const std::int64_t routed = std::min(rows * e.top_k, e.count * e.capacity(rows));
    const std::int64_t routed_rows = routed * c.width * element;
    const std::int64_t experts = routed * e.width * element;
    const std::int64_t shared = rows * e.shared * e.width * element;
    const std::int64_t scores = 5 * rows * e.count * kF32Bytes + 6 * rows * e.top_k * kI64Bytes;
    const std::int64_t values = (c.is_gpt2() ? 2 : 3) - (again ? 1 : 0);
    const std::int64_t gradients = c.is_gpt2() ? 1 : 2;
    const std::int64_t summed = c.is_gpt2() || element == kF32Bytes ? 0 : routed_rows;
    mixture_kept = 2 * routed_rows + scores + values * (experts + shared);
    mixture_gradients =
        std::max(gradients * shared, gradients * experts + routed_rows + summed - values * shared +
                                         (shared > 0 ? stream : 0));
  }

  // A block's attention half: the stream and its norm, q, k, v, and what attention gives.
  std::int64_t attention_kept() const { return 2 * stream + moments + 2 * q + 2 * kv + log_sums; }
  std::int64_t block_kept(bool sparse) const {
    return attention_kept() + 2 * stream + moments + (sparse ? mixture_kept : mlp_kept);
  }
};

// The most that lives at once, of the moments that can be it. A gradient of the stream flows
// through all of the backward pass: `stream` once in each of its moments.
std::int64_t activation_bytes(const TrainConfig& config) {
  const TensorBytes t(config);
  const std::int64_t layers = config.model.layers;
  const bool blocks = config.compute.recompute_mode() == Recompute::kBlocks;
  // Of all blocks, and of what is computed again of the last one while it goes backward: its
  // outputs, the stream in two parts, live as long as that takes.
  const std::int64_t sparse = config.model.experts.num_layers(layers);
  const bool last_is_sparse = config.model.experts.in_layer(layers - 1);
  const std::int64_t last_kept = t.block_kept(last_is_sparse);
  const std::int64_t kept =
      blocks ? (2 * layers - 1) * t.stream
             : (layers - sparse) * t.block_kept(false) + sparse * t.block_kept(true);
  const std::int64_t again = blocks ? last_kept + t.stream - (layers == 1 ? t.stream : 0) : 0;
  const std::int64_t mlp = last_kept - t.attention_kept();
  const std::int64_t still_held = blocks ? 2 * t.stream : 0;

  const std::int64_t moments[] = {
      // In the loss: the final norm's sum and result, and the gradient of that.
      kept + t.moments + 2 * t.stream + t.gathered + t.all_rows + t.head_gradient + t.logits,
      // The final norm, backward: its sum, three gradients.
      kept + t.moments + 4 * t.stream + t.gathered + t.norm_partials,
      // The last MLP; its input and its output's gradient are gathered.
      kept + again + t.stream + 2 * t.gathered +
          (last_is_sparse ? t.mixture_gradients : t.mlp_gradients) + t.all_rows,
      // The last attention: gradients of its output, of q, k and v.
      kept + again - mlp + still_held + t.stream + 2 * t.gathered + 2 * t.q + 2 * t.kv + t.across,
  };
  return t.whole_step + *std::max_element(std::begin(moments), std::end(moments));
}

// [rows, inner] times [inner, columns].
struct Product {
  std::int64_t rows, inner, columns;
};

// Of all linear layers, forward and backward; the head's go by blocks of rows.
std::vector<Product> products_of(const TrainConfig& config) {
  const nn::ModelConfig& c = config.model;
  const LargestPart part(c, config.parallel.tp);
  const std::int64_t N = rows_of(config);
  std::vector<Product> products;
  const auto add = [&](std::int64_t rows, std::int64_t in, std::int64_t out) {
    products.insert(products.end(), {{rows, in, out}, {rows, out, in}, {out, rows, in}});
  };
  add(N, c.width, part.q_width);
  add(N, part.q_width, c.width);
  add(N, c.width, part.kv_width);
  add(N, c.width, part.mlp_width);
  add(N, part.mlp_width, c.width);
  if (c.experts.count > 0) {
    // An expert may get every token.
    add(N, c.width, c.experts.width);
    add(N, c.experts.width, c.width);
    if (c.experts.shared > 0) {
      add(N, c.width, c.experts.shared * c.experts.width);
      add(N, c.experts.shared * c.experts.width, c.width);
    }
  }
  add(std::min(ops::kLossRows, N), c.width, part.vocab_size);
  if (N % ops::kLossRows != 0) add(N % ops::kLossRows, c.width, part.vocab_size);
  return products;
}

// What a thread keeps for its kernels, by slot, in floats. How products are cut is matrix_product's
// business; near enough, a thread gets its share of the rows or of the columns, and packs as much
// of either side at once as fills a third of the second-level cache.
class ThreadScratch {
 public:
  static std::int64_t bytes(const TrainConfig& config, int threads) {
    ThreadScratch scratch(threads);
    for (const Product& product : products_of(config)) scratch.add(product);
    return kF32Bytes * (scratch.left_ + scratch.right_ + scratch.tiles_ +
                        attention(config.model, LargestPart(config.model, config.parallel.tp)));
  }

 private:
  static constexpr std::int64_t kDepth = ops::detail::kMaxDepth;
  static constexpr std::int64_t kLeftRow = kDepth + 16;  // of a panel, however deep the product is
  static constexpr std::int64_t kMostTiles = 1 << 18;

  explicit ThreadScratch(int threads) : threads_(threads) {}

  void add(const Product& p) {
    constexpr std::int64_t kLeastCache = std::int64_t{256} << 10;
    const std::int64_t cache = std::max<std::int64_t>(kLeastCache, sysconf(_SC_LEVEL2_CACHE_SIZE));
    const std::int64_t depth = div_up(p.inner, div_up(p.inner, kDepth));
    const std::int64_t side = std::max(tile_.columns, cache / kF32Bytes / 3 / depth);
    const auto share = [&](std::int64_t whole, std::int64_t unit) {
      return div_up(std::min(side, div_up(whole, threads_)), unit) * unit;
    };
    left_ = std::max(left_, share(p.rows, tile_.rows) * kLeftRow);
    right_ = std::max(right_, share(p.columns, tile_.columns) * depth);
    if (p.inner > depth) {
      tiles_ = std::max(tiles_, std::min(kMostTiles, div_up(p.rows * p.columns, threads_)));
    }
  }

  // Of the backward pass, which takes more than the forward pass: blocks of queries and keys as
  // left panels, three blocks of scores, and all of a kv head's queries.
  static std::int64_t attention(const nn::ModelConfig& c, const LargestPart& part) {
    constexpr std::int64_t kQueries = 96, kKeys = 192;  // of a block
    const std::int64_t columns = ops::detail::tile_shape().columns;
    const std::int64_t width = div_up(c.head_width(), columns) * columns;
    const std::int64_t queries =
        part.heads / part.kv_heads * div_up(c.context, kQueries) * kQueries;
    return (3 * kQueries + kKeys) * kLeftRow + 3 * kQueries * kKeys +
           (5 * kKeys + 2 * kQueries + queries) * width;
  }

  const ops::detail::TileShape tile_ = ops::detail::tile_shape();
  int threads_;
  std::int64_t left_ = 0, right_ = 0, tiles_ = 0;
};

// Ranks whose gradients are summed, and their passes in a step.
std::int64_t replicas(const TrainConfig& config, const JobShape& job) {
  return std::max<std::int64_t>(1, job.ranks / (config.parallel.ep * config.parallel.tp));
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

// In GB from one on, else in MB.
struct Unit {
  double bytes;
  const char* name;
};
Unit unit_for(std::int64_t bytes) {
  return bytes >= 1'000'000'000 ? Unit{1e9, "GB"} : Unit{1e6, "MB"};
}

std::string in_words(std::int64_t bytes) {
  const Unit unit = unit_for(bytes);
  return fmt::format("{:.2f} {}", static_cast<double>(bytes) / unit.bytes, unit.name);
}

// "compute.recompute=blocks (1.20 GB), ...": what would take less.
std::string smaller_settings(const TrainConfig& config, const JobShape& job) {
  std::string text;
  const auto add = [&](const char* name, auto change) {
    TrainConfig other = config;
    change(other);
    const std::int64_t bytes = estimate_memory(other, job).total();
    if (bytes < estimate_memory(config, job).total()) {
      text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", name, in_words(bytes));
    }
  };
  add("compute.recompute=blocks", [](TrainConfig& c) { c.compute.recompute = "blocks"; });
  add("parallel.shard=3", [](TrainConfig& c) { c.parallel.shard = 3; });
  add("parallel.shard_ranks=0", [](TrainConfig& c) { c.parallel.shard_ranks = 0; });
  if (config.parallel.tp > 1 && !config.parallel.sequence) {
    add("parallel.sequence=true", [](TrainConfig& c) { c.parallel.sequence = true; });
  }
  add("batch.micro_batch_size=1", [](TrainConfig& c) { c.batch.micro_batch_size = 1; });
  add("train.dtype=bf16", [](TrainConfig& c) { c.train.dtype = "bf16"; });
  add("a model of half the layers",
      [](TrainConfig& c) { c.model.layers = div_up(c.model.layers, 2); });
  return text;
}

}  // namespace

MemorySplit estimate_memory(const TrainConfig& config, const JobShape& job) {
  const FlatElements flat = flat_elements(config);
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
  memory[kActivations] = activation_bytes(config);
  memory[kWorkspace] = job.threads * ThreadScratch::bytes(config, job.threads);
  // Gradients that are summed or on their way, and weights that are gathered.
  if (stage >= 2) memory[kWorkspace] += kF32Bytes * (flat.rest + 4 * flat.block);
  // All that is not experts, to be summed over ep.
  if (config.parallel.ep > 1) {
    memory[kWorkspace] += kF32Bytes * (all - flat.experts);
  }
  if (stage == 3) {
    memory[kWorkspace] += (copy_bytes == 0 ? kF32Bytes : copy_bytes) *
                          (flat.rest + (2 + config.parallel.prefetch) * flat.block);
  }
  return memory;
}

std::string describe_memory(const MemorySplit& memory) {
  const Unit unit = unit_for(memory.total());
  std::string parts;
  for (const MemoryCategory category : kMemoryCategories) {
    parts += fmt::format("{}{} {:.2f}", parts.empty() ? "" : ", ", memory_category_name(category),
                         static_cast<double>(memory[category]) / unit.bytes);
  }
  return fmt::format("{} ({})", in_words(memory.total()), parts);
}

void check_memory(const TrainConfig& config, const JobShape& job, std::int64_t available_bytes) {
  const MemorySplit memory = estimate_memory(config, job);
  const std::int64_t needed = memory.total() * job.local_ranks;
  if (available_bytes <= 0 || needed <= available_bytes) return;
  throw_error<ConfigError>(
      "a worker needs about {}, the {} on this host {}, but {} are available: a worker would need "
      "less with {}; or start fewer workers on this host",
      describe_memory(memory), job.local_ranks, in_words(needed), in_words(available_bytes),
      smaller_settings(config, job));
}

void check_gather_budget(const TrainConfig& config) {
  const std::int64_t budget = config.parallel.gather_budget_bytes;
  const FlatElements flat = flat_elements(config);
  const std::int64_t least = (flat.rest + flat.block) * (config.train.dtype == "bf16" ? 2 : 4);
  if (config.parallel.shard < 3 || budget == 0 || budget >= least) return;
  throw_error<ConfigError>(
      "parallel.gather_budget_bytes is {}, but the embeddings and one block take {}: raise it, or "
      "leave it out",
      budget, least);
}

std::int64_t memory_for_training() {
  const MemoryInfo memory = this_host().memory;
  // What the group uses already is mostly files in the page cache, which the kernel gives back.
  return memory.cgroup_limit_bytes ? std::min(memory.available_bytes, *memory.cgroup_limit_bytes)
                                   : memory.available_bytes;
}

}  // namespace trireme
