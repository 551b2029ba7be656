// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/memory_estimate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_kernels.h"
#include "trireme/ops/loss.h"
#include "trireme/topology/host.h"
#include "trireme/train/activation_sizes.h"
#include "trireme/train/stage_memory.h"

namespace trireme {
namespace {

using enum MemoryCategory;
using nn::Recompute;

constexpr std::int64_t kF32Bytes = 4;

std::int64_t div_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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
    std::int64_t bytes = 0;
    try {
      bytes = estimate_memory(other, job).total();
    } catch (const ConfigError&) {
      return;  // no such pipeline
    }
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
  if (config.parallel.pp > 1) {
    add("parallel.pipeline.schedule=1f1b",
        [](TrainConfig& c) { c.parallel.pipeline.schedule = "1f1b"; });
  }
  add("batch.micro_batch_size=1", [](TrainConfig& c) { c.batch.micro_batch_size = 1; });
  add("train.dtype=bf16", [](TrainConfig& c) { c.train.dtype = "bf16"; });
  add("a model of half the layers",
      [](TrainConfig& c) { c.model.layers = div_up(c.model.layers, 2); });
  return text;
}

}  // namespace

std::vector<MemorySplit> pipeline_memory(const TrainConfig& config, const JobShape& job,
                                         const PipelinePlan& plan) {
  std::vector<MemorySplit> memory(static_cast<std::size_t>(plan.schedule.ranks));
  std::vector<std::int64_t> kept(memory.size(), 0);
  for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) {
    const auto rank = static_cast<std::size_t>(plan.schedule.rank_of_stage[stage]);
    const MemorySplit own = stage_parameter_memory(config, job, plan.stages[stage]);
    for (const MemoryCategory category : kMemoryCategories) memory[rank][category] += own[category];
    kept[rank] += plan.costs[stage].weight_bytes;
  }
  const std::int64_t scratch = job.threads * ThreadScratch::bytes(config, job.threads);
  for (std::size_t rank = 0; rank < memory.size(); ++rank) {
    memory[rank][kActivations] = plan.report.ranks[rank].peak_bytes - kept[rank];
    memory[rank][kWorkspace] += scratch;
  }
  return memory;
}

MemorySplit estimate_memory(const TrainConfig& config, const JobShape& job) {
  if (config.parallel.pp > 1) {
    const std::int64_t dp =
        std::max<std::int64_t>(1, job.ranks / config.parallel.ranks_of_a_replica());
    const std::vector<MemorySplit> memory = pipeline_memory(
        config, job, plan_pipeline(config, static_cast<int>(dp), estimate_layer_times(config)));
    return *std::ranges::max_element(memory, {}, &MemorySplit::total);
  }
  MemorySplit memory = parameter_memory(config, job, whole_model(config.model));
  memory[kActivations] = activation_bytes(config);
  memory[kWorkspace] += job.threads * ThreadScratch::bytes(config, job.threads);
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
  const FlatElements flat = flat_elements(config, whole_model(config.model));
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
