// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/step_bench.h"

#include <ATen/Parallel.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <memory>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/comm/group.h"
#include "trireme/data/token_shards.h"
#include "trireme/ops/machine_rates.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/train/bench/known_models.h"
#include "trireme/train/bench/timing.h"
#include "trireme/train/compare_schedules.h"
#include "trireme/train/memory_estimate.h"
#include "trireme/train/model_state.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/pipeline_plan.h"
#include "trireme/train/train_step.h"

namespace trireme {
namespace {

constexpr std::uint64_t kSeed = 1234;
constexpr char kSplit[] = "train";
constexpr auto kMemoryBudget = std::chrono::milliseconds(400);

void check_at_least_one(const char* option, std::int64_t value) {
  if (value < 1) throw_error<ConfigError>("{} is {}; it must be at least 1", option, value);
}

// Samples for a few steps; epochs repeat them in another order.
TokenShards random_tokens(const StepBenchOptions& options, const nn::ModelConfig& config,
                          const std::string& folder, int samplers) {
  constexpr std::int64_t kSteps = 4;
  constexpr char kNoTokenizer[] = "0000000000000000";  // a hash's digits
  const RandomStream random(kSeed, "tokens");
  std::vector<TokenId> ids(static_cast<std::size_t>(
      kSteps * options.batch * options.accumulate * samplers * options.tokens + 1));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<TokenId>(random.bits(i) % static_cast<std::uint64_t>(config.vocab_size));
  }
  TokenShardWriter writer(folder, kSplit, config.vocab_size, kNoTokenizer);
  writer.append(ids);
  writer.finish();
  return {folder, kSplit};
}

// Ranks with other samples than one another.
int samplers_of(const StepBenchOptions& options, int ranks) {
  return std::max(1, ranks / static_cast<int>(options.tp * options.cp * options.pp));
}

// Ranks whose gradients are summed.
int replicas_of(const StepBenchOptions& options, int ranks) {
  return std::max(1, ranks / static_cast<int>(options.tp * options.ep * options.pp));
}

TrainConfig train_config(const StepBenchOptions& options, const nn::ModelConfig& model, int ranks) {
  TrainConfig config;
  config.seed = kSeed;
  config.model = model;
  config.batch = {.micro_batch_size = options.batch,
                  .micro_batches = options.accumulate * samplers_of(options, ranks)};
  config.parallel.tp = options.tp;
  config.parallel.sequence = options.sequence;
  config.parallel.tp_chunks = options.tp_chunks;
  config.parallel.cp = options.cp;
  config.parallel.cp_method = options.cp_method;
  config.parallel.ep = options.ep;
  config.parallel.pp = options.pp;
  config.parallel.pipeline = {.schedule = options.schedule,
                              .chunks = options.pp_chunks,
                              .layers = options.pp_layers,
                              .balance = options.balance,
                              .trace_step = 0};
  config.parallel.shard = options.shard;
  config.parallel.shard_ranks = options.shard_ranks;
  config.train.steps = options.warm_up_steps + options.steps;
  config.train.dtype = options.dtype;
  return config;
}

// Refuses what the host has no memory for, in the words of this command's options.
void check_memory(const StepBenchOptions& options, const TrainConfig& config, int ranks) {
  const std::int64_t needed =
      estimate_memory(config, {.ranks = ranks, .threads = at::get_num_threads()}).total();
  const std::int64_t available = memory_for_training();
  if (available > 0 && needed > available) {
    throw_error<ConfigError>(
        "a step of {} sequences of {} tokens takes about {:.1f} GB and {:.1f} GB are available: "
        "give a smaller --batch or --seq",
        options.batch, options.tokens, static_cast<double>(needed) / 1e9,
        static_cast<double>(available) / 1e9);
  }
}

// Forgets what the process has used before, as far as the kernel lets it (proc(5), clear_refs).
void reset_peak() {
  ::malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
}

// VmHWM. 0 where the kernel does not tell.
std::int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

// Adds up the parts of all steps.
class PartSums {
 public:
  void add(const std::vector<PartTotal>& totals) {
    for (const PartTotal& total : totals) {
      StepPart& part = find(total.name);
      part.calls += static_cast<double>(total.calls);
      part.seconds += total.seconds;
      part.flops += total.flops;
    }
    ++steps_;
  }

  // Of the step that takes median_seconds.
  std::vector<StepPart> of_step(double median_seconds) const {
    double seconds = 0;
    for (const StepPart& part : parts_) seconds += part.seconds;
    std::vector<StepPart> result = parts_;
    for (StepPart& part : result) {
      part.calls /= steps_;
      part.flops /= steps_;
      part.share = part.seconds / seconds;
      part.seconds = part.share * median_seconds;
    }
    std::sort(result.begin(), result.end(),
              [](const StepPart& a, const StepPart& b) { return a.seconds > b.seconds; });
    return result;
  }

 private:
  StepPart& find(std::string_view name) {
    for (StepPart& part : parts_) {
      if (part.name == name) return part;
    }
    return parts_.emplace_back(StepPart{.name = std::string(name)});
  }

  std::vector<StepPart> parts_;
  double steps_ = 0;
};

double seconds_of(const std::vector<PartTotal>& totals) {
  double seconds = 0;
  for (const PartTotal& total : totals) seconds += total.seconds;
  return seconds;
}

// Of the last step, over the ranks of the pipeline. Collective.
double measured_bubble(const ModelState& state) {
  const PipelineRun& run = state.pipeline()->last_run();
  Group& group = *state.groups().pipeline();
  double busy = run.busy_us();
  double longest = run.spans.empty() ? 0 : run.spans.back().end_us;
  group.all_reduce(buffer_of(std::span(&busy, 1)));
  group.all_reduce(buffer_of(std::span(&longest, 1)), ReduceOp::kMax);
  return 1 - busy / (longest * group.size());
}

// Runs the steps and fills in what they tell. The model is gone when it returns.
void run_steps(const TrainConfig& config, const TokenShards& shards, Group& group,
               StepBenchReport& report) {
  const StepBenchOptions& options = report.options;
  ModelState state(config, group, kSeed);
  TrainStep step(config, shards, state);
  for (std::int64_t i = 0; i < options.warm_up_steps; ++i) step.run(i, false);
  StepParts recorder;
  PartSums sums;
  std::vector<double> seconds, communication_us, exposed_us;
  const std::int64_t sent_before = state.bytes_sent();
  const std::int64_t sent_across_before = state.bytes_sent_between_replicas();
  const std::int64_t activations_before = state.activation_bytes_sent();
  std::vector<double> bubbles;
  process_memory().reset_peak();
  for (std::int64_t i = 0; i < options.steps; ++i) {
    recorder.start();
    const StepStats stats = step.run(options.warm_up_steps + i, false);
    report.loss = stats.loss;
    communication_us.push_back(stats.exchange.communication_us);
    exposed_us.push_back(stats.exchange.exposed_us);
    const std::vector<PartTotal> totals = recorder.stop();
    seconds.push_back(seconds_of(totals));
    if (state.pipeline() != nullptr) bubbles.push_back(measured_bubble(state));
    sums.add(totals);
  }
  report.seconds = spread_of(seconds);
  if (const PipelinePlan* plan = state.pipeline_plan()) {
    report.pipeline.bubble = spread_of(bubbles);
    report.pipeline.planned_bubble = bubble_of(plan->report);
    for (const nn::TransformerPart& part : plan->stages) {
      report.pipeline.blocks.push_back(part.end - part.begin);
    }
  }
  const auto per_step = [&](std::int64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(options.steps);
  };
  report.exchange = {spread_of(communication_us), spread_of(exposed_us),
                     per_step(state.bytes_sent() - sent_before),
                     per_step(state.bytes_sent_between_replicas() - sent_across_before),
                     per_step(state.activation_bytes_sent() - activations_before)};
  const MemoryReport report_of_memory = process_memory().report();
  const MemorySplit& memory = report_of_memory.current;
  report.weight_bytes = memory[MemoryCategory::kWeights];
  report.activation_bytes = report_of_memory.at_peak[MemoryCategory::kActivations];
  report.state_bytes = memory[MemoryCategory::kWeights] + memory[MemoryCategory::kGradients] +
                       memory[MemoryCategory::kOptimizer];
  report.parts = sums.of_step(report.seconds.median);
}

StepLimit measure_limit(const StepBenchOptions& options, const nn::ModelConfig& config) {
  const at::ScalarType dtype = training_dtype(options.dtype);
  StepLimit limit;
  limit.rates = measure_product_rates(step_products(config, options.batch, options.tokens), dtype,
                                      options.limit_timing);
  limit.memory_bytes_per_s = measure_memory_bytes_per_s(kMemoryBudget);
  limit.optimizer_bytes =
      optimizer_bytes_per_parameter(dtype) * static_cast<double>(config.num_parameters());
  return limit;
}

}  // namespace

void StepBenchOptions::validate(int ranks) const {
  training_dtype(dtype);
  check_at_least_one("--batch", batch);
  check_at_least_one("--seq", tokens);
  check_at_least_one("--steps", steps);
  check_at_least_one("--accumulate", accumulate);
  if (shard < 0 || shard > 3) {
    throw_error<ConfigError>("--shard is {}; it must be 0, 1, 2 or 3, a stage of ZeRO", shard);
  }
  if (shard == 0 && shard_ranks != 0) {
    throw_error<ConfigError>(
        "--shard-ranks is of --shard 1, 2 and 3, but --shard is 0 and nothing is sharded: leave it "
        "out, or give a stage");
  }
  check_at_least_one("--tp", tp);
  check_at_least_one("--tp-chunks", tp_chunks);
  check_at_least_one("--cp", cp);
  check_at_least_one("--ep", ep);
  check_at_least_one("--pp", pp);
  if (const std::int64_t together = pp * tp * cp * ep; ranks % together != 0) {
    throw_error<ConfigError>(
        "--pp {}, --tp {}, --cp {} and --ep {} need a multiple of {} ranks, but there are {}", pp,
        tp, cp, ep, together, ranks);
  }
  if (pp > 1) {
    const TrainConfig config = train_config(*this, known_model(model, tokens), ranks);
    config.parallel.pipeline.validate(pp);
    plan_pipeline(config, samplers_of(*this, ranks) / static_cast<int>(ep),
                  estimate_layer_times(config));
  }
  if (sequence && tp == 1) {
    throw_error<ConfigError>("--sequence is of --tp 2 and more, but --tp is 1: leave it out");
  }
  train_config(*this, known_model(model, tokens), ranks)
      .validate_model_parallel(known_model(model, tokens));
  if (shard_ranks != kHostRanks) {
    const int replicas = replicas_of(*this, ranks);
    const ShardPlan plan(replicas, shard_ranks);
    if (shard >= 2) plan.rounds(accumulate * samplers_of(*this, ranks) * cp / ep, 0);
  }
  if (warm_up_steps < 0) throw_error<ConfigError>("--warm-up is {}; use 0 or more", warm_up_steps);
  check_memory(*this, train_config(*this, known_model(model, tokens), ranks), ranks);
}

double StepBenchReport::tokens_per_step() const {
  return static_cast<double>(options.batch * options.tokens * options.accumulate *
                             samplers_of(options, ranks));
}

double StepBenchReport::share_of_limit() const {
  return limit.rates.empty() ? std::numeric_limits<double>::quiet_NaN()
                             : limit.seconds() / seconds.median;
}

double StepBenchReport::matrix_share() const {
  double share = 0;
  for (const StepPart& part : parts) share += part.flops > 0 ? part.share : 0.0;
  return share > 0 ? share : std::numeric_limits<double>::quiet_NaN();
}

double StepBenchReport::flops_in_parts() const {
  double sum = 0;
  for (const StepPart& part : parts) sum += part.flops;
  return sum;
}

StepBenchReport bench_step(const StepBenchOptions& options, const std::string& folder,
                           Group& group) {
  options.validate(group.size());
  const nn::ModelConfig model = known_model(options.model, options.tokens);
  StepBenchReport report;
  report.options = options;
  report.ranks = group.size();
  if (options.shard_ranks == kHostRanks) {
    report.options.shard_ranks = host_data_ranks(
        train_mesh(train_config(options, model, group.size()).parallel, group.size()),
        group.hosts());
  }
  report.replicas =
      ShardPlan(replicas_of(options, report.ranks), report.options.shard_ranks).replicas();
  report.parameters = model.num_parameters();
  report.threads = at::get_num_threads();
  report.flops = static_cast<double>(options.accumulate) *
                 total_flops(step_products(model, options.batch, options.tokens));
  reset_peak();
  run_steps(train_config(options, model, group.size()),
            random_tokens(options, model, folder, samplers_of(options, group.size())), group,
            report);
  report.peak_bytes = peak_resident_bytes();
  if (options.measure_limit && group.size() == 1 && options.accumulate == 1)
    report.limit = measure_limit(options, model);
  return report;
}

double optimizer_bytes_per_parameter(at::ScalarType dtype) {
  constexpr double kF32Bytes = 4, kBf16Bytes = 2;
  constexpr double kRead = 4, kWritten = 3;  // arrays
  return (kRead + kWritten) * kF32Bytes + (dtype == at::kBFloat16 ? kBf16Bytes : 0.0);
}

at::ScalarType training_dtype(std::string_view name) {
  if (name == "f32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  throw_error<ConfigError>("there is no training in dtype '{}'; use f32 or bf16", name);
}

}  // namespace trireme
