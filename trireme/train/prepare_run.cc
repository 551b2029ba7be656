// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/prepare_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <filesystem>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/checkpoint/atomic_file.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/data/corpus.h"
#include "trireme/data/sampler.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/topology/host.h"
#include "trireme/train/memory_estimate.h"
#include "trireme/train/model_state.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/pipeline_plan.h"
#include "trireme/train/prepare_data.h"
#include "trireme/train/served_parameters.h"

namespace trireme {
namespace {

std::string tokens_folder(const TrainConfig& config) {
  return config.data.tokens.empty() ? RunFolder(config.out).data() : config.data.tokens;
}

// Workers to a copy of the model, of those with different samples. auto: by what the launcher says
// of this host, before workers have met; ShardedModel then asks all hosts.
ShardPlan shard_plan(const TrainConfig& config, const Mesh& mesh, int workers, int local_workers) {
  const std::vector<int> ranks = mesh.group_ranks(0, {"dp", "cp"});
  const auto replicas = static_cast<int>(ranks.size());
  if (config.parallel.shard_ranks != kHostRanks) return {replicas, config.parallel.shard_ranks};
  const auto local = static_cast<int>(
      std::ranges::count_if(ranks, [&](int rank) { return rank < local_workers; }));
  const bool is_power_of_two = std::has_single_bit(static_cast<unsigned>(local));
  if (local != replicas && (replicas % local != 0 || !is_power_of_two)) {
    throw_error<ConfigError>(
        "parallel.shard_ranks is auto, but this host has {} of {} workers: start equally many on "
        "each, a power of two of them, or give it a number",
        local_workers, workers);
  }
  return {replicas, local};
}

// What servers cannot do, said before anything is made.
void check_served(const TrainConfig& config, int workers) {
  const ServersConfig& servers = config.parallel.ps;
  if (config.parallel.shard > 0) {
    throw_error<ConfigError>(
        "parallel.shard is {} and parallel.ps.servers {}: weights and optimizer are either shared "
        "among the workers or kept by servers; set one of them to 0",
        config.parallel.shard, servers.servers);
  }
  if (config.parallel.ranks_of_a_replica() > 1) {
    throw_error<ConfigError>(
        "{} and parallel.ps.servers {}: servers keep whole models, of workers that each compute "
        "with all of one; leave {} at 1, or take no servers",
        config.parallel.axes_in_words(), servers.servers,
        config.parallel.ranks_of_a_replica() == config.parallel.tp ? "it" : "them");
  }
  if (config.model.experts.count > 0 && config.model.experts.balance == "bias") {
    throw_error<ConfigError>(
        "model.experts.balance is bias, which is counted over the workers of each step, and "
        "parallel.ps.servers {}: take balance loss, or no servers",
        servers.servers);
  }
  check_served_micro_batches(ps::Consistency::parse(servers.consistency),
                             config.batch.micro_batches, workers);
}

void check_host_memory(const TrainConfig& resolved, const PrepareRunOptions& options) {
  check_gather_budget(resolved);
  check_memory(
      resolved,
      {.ranks = options.workers, .threads = options.threads, .local_ranks = options.local_workers},
      memory_for_training());
}

// Before the data are made, where the vocabulary is known without them.
void check_host_memory_early(const TrainConfig& config, const PrepareRunOptions& options) {
  if (!config.data.tokens.empty() || !config.data.tokenizer.empty() || !config.train.init.empty())
    return;
  TrainConfig resolved = config;
  resolve_without_data(resolved);
  check_host_memory(resolved, options);
}

// A run goes on with the settings that it began with; only its length may change.
void check_resumed_settings(const TrainConfig& config) {
  const std::string path = RunFolder(config.out).config();
  const TrainConfig before = load_train_config(ConfigTree::load(path, {}));
  const Settings settings = result_settings(config);
  const Settings old = result_settings(before);
  for (std::size_t i = 0; i < old.size(); ++i) {
    const auto& [name, value] = settings[i];
    if (value == old[i].second) continue;
    if (name == "train.steps") {
      log_info("resume: train.steps changes from {} to {}", old[i].second, value);
      continue;
    }
    throw_error<ConfigError>(
        "{} is '{}', but the run in '{}' began with '{}': resume it with the same settings, or "
        "start "
        "a new run",
        name, value, config.out, old[i].second);
  }
}

std::string tokenizer_of_init(const std::string& init) {
  const std::string path = resolve_checkpoint(init);
  Checkpoint::open(path);
  return path + "/tokenizer.json";
}

void make_tokens(const TrainConfig& config) {
  PrepareOptions options;
  options.text = config.data.text;
  options.output = tokens_folder(config);
  options.tokenizer = config.data.tokenizer;
  if (options.tokenizer.empty() && !config.train.init.empty()) {
    options.tokenizer = tokenizer_of_init(config.train.init);
  }
  options.train.vocab_size = config.data.vocab_size;
  options.validation_fraction = config.data.validation_fraction;
  options.max_file_bytes = config.data.max_file_bytes;
  options.seed = static_cast<std::uint64_t>(config.seed);
  options.threads = usable_cores();
  report_preparation(options, prepare_with_progress(options));
}

// The sizes that only the data tells.
void check_data(const TrainConfig& given, const PrepareRunOptions& options) {
  TrainConfig config = given;
  const TrainData data = open_train_data(config);
  check_host_memory(config, options);
  const auto seed = static_cast<std::uint64_t>(config.seed);
  const Sampler train(data.train.num_tokens(), config.model.context, seed);
  const Sampler validation(data.validation.num_tokens(), config.model.context, seed, false);
  if (!config.train.init.empty()) {
    check_checkpoint_fits(Checkpoint::open(resolve_checkpoint(config.train.init)), config.model,
                          data.tokenizer.hash());
  }
}

void write_run_files(const TrainConfig& config) {
  const RunFolder folder(config.out);
  write_file_atomically(folder.config(), config_to_yaml(config, true));
  const Tokenizer tokenizer = Tokenizer::load(tokens_folder(config) + "/tokenizer.json");
  write_file_atomically(folder.tokenizer(), tokenizer.to_json());
}

}  // namespace

void check_layout(const TrainConfig& config, int workers, int local_workers) {
  const Mesh mesh = train_mesh(config.parallel, workers);
  if (config.parallel.ps.servers > 0) return check_served(config, workers);
  const ShardPlan shards = shard_plan(config, mesh, workers, local_workers);
  const ParallelConfig& parallel = config.parallel;
  const std::int64_t micro_batches = config.batch.micro_batches;
  if (micro_batches % parallel.ep != 0) {
    throw_error<ConfigError>(
        "batch.micro_batches is {} and parallel.ep {}: each rank of ep has as many micro-batches "
        "of a step, so take a multiple of {}",
        micro_batches, parallel.ep, parallel.ep);
  }
  const std::int64_t passes = micro_batches * parallel.cp / parallel.ep;
  if (parallel.shard >= 2) shards.rounds(passes, 0);
  // Who has which samples; then whose gradients are summed.
  try {
    const MicroBatchPlan plan(micro_batches / parallel.ep, mesh.axis_size("dp"));
    const MicroBatchPlan sums(passes, mesh.axis_size("dp") * mesh.axis_size("cp"));
  } catch (const ConfigError& error) {
    if (parallel.ep * parallel.cp == 1) throw;
    throw_error<ConfigError>("parallel.dp {} with {} cannot share {} micro-batches a step ({})",
                             mesh.axis_size("dp"), parallel.axes_in_words(), micro_batches,
                             error.what());
  }
  if (parallel.pp == 1) return;
  TrainConfig resolved = config;
  resolve_without_data(resolved);
  plan_pipeline(resolved, mesh.axis_size("dp"), estimate_layer_times(resolved));
}

void resolve_without_data(TrainConfig& config) {
  const std::string of_tokens = tokens_folder(config) + "/tokenizer.json";
  const std::string& path = config.data.tokenizer.empty() ? of_tokens : config.data.tokenizer;
  std::int64_t size =
      config.model.vocab_size > 0 ? config.model.vocab_size : config.data.vocab_size;
  if (std::filesystem::exists(path)) size = Tokenizer::load(path).vocab_size();
  config.model.resolve(size);
}

std::unique_ptr<RunFolderLock> prepare_run(const TrainConfig& config,
                                           const PrepareRunOptions& options) {
  check_layout(config, options.workers, options.local_workers);
  check_host_memory_early(config, options);
  if (!config.data.text.empty() && !std::filesystem::exists(config.data.text)) {
    throw_error<DataError>("data.text: there is no folder or file '{}'", config.data.text);
  }
  auto lock = std::make_unique<RunFolderLock>(RunFolder(config.out), options.resume);
  try {
    if (options.resume) check_resumed_settings(config);
    if (config.data.tokens.empty()) make_tokens(config);
    check_data(config, options);
    write_run_files(config);
  } catch (...) {
    if (!options.resume) lock->abandon();
    throw;
  }
  return lock;
}

TrainData open_train_data(TrainConfig& config) {
  const std::string folder = tokens_folder(config);
  TrainData data{Tokenizer::load(folder + "/tokenizer.json"), TokenShards(folder, "train"),
                 TokenShards(folder, "validation")};
  for (const TokenShards* shards : {&data.train, &data.validation}) {
    if (shards->tokenizer_hash() != data.tokenizer.hash()) {
      throw_error<DataError>(
          "{}: the token shards were made with another tokenizer (hash {}) than the tokenizer.json "
          "beside them ({}): make them anew with trireme tokenize",
          folder, shards->tokenizer_hash(), data.tokenizer.hash());
    }
  }
  config.model.resolve(data.tokenizer.vocab_size());
  return data;
}

}  // namespace trireme
