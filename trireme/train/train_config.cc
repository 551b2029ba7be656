// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/train_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <string_view>

#include "trireme/base/error.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/parallel/tensor/tensor_plan.h"
#include "trireme/ps/dense_codec.h"
#include "trireme/ps/protocol/view.h"

namespace trireme {
namespace {

void require_at_least(std::string_view name, std::int64_t value, std::int64_t least) {
  if (value < least) throw_error<ConfigError>("{} is {}: at least {}", name, value, least);
}

void require_positive(std::string_view name, double value) {
  if (!(value > 0)) throw_error<ConfigError>("{} is {}: it must be above 0", name, value);
}

// Of the rank of tp that has the fewest heads.
void check_ulysses(const nn::ModelConfig& model, const ParallelConfig& parallel) {
  const AttentionHeads heads{model.heads, model.kv_heads, model.head_width()};
  std::int64_t fewest = model.heads;
  for (int rank = 0; rank < parallel.tp; ++rank) {
    const DimPart part = dim_part({"", TensorCut::kOutputs, heads}, "attn.q", model.width, rank,
                                  static_cast<int>(parallel.tp));
    fewest = std::min(fewest, (part.end - part.begin) / model.head_width());
  }
  if (fewest >= parallel.cp) return;
  throw_error<ConfigError>(
      "parallel.cp is {} by ulysses, but a worker has {} heads: at most as many ranks as heads, or "
      "take parallel.cp_method ring",
      parallel.cp, fewest);
}

// Collects every setting as text.
class SettingsCollector final : public ConfigFields {
 public:
  void field(std::string_view name, bool& value, std::string_view) override {
    add(name, value ? "true" : "false");
  }
  void field(std::string_view name, std::int64_t& value, std::string_view) override {
    add(name, fmt::format("{}", value));
  }
  void field(std::string_view name, std::int64_t& value, std::string_view,
             const NumberWord& word) override {
    add(name, value == word.number ? std::string(word.word) : fmt::format("{}", value));
  }
  void field(std::string_view name, double& value, std::string_view) override {
    add(name, fmt::format("{}", value));
  }
  void field(std::string_view name, std::string& value, std::string_view,
             std::initializer_list<std::string_view>) override {
    add(name, value);
  }
  void field(std::string_view name, std::vector<std::string>& value, std::string_view) override {
    add(name, fmt::format("{}", fmt::join(value, ",")));
  }
  Settings settings;

 protected:
  bool enter(std::string_view name, std::string_view) override {
    prefix_.push_back(std::string(name));
    return true;
  }
  void leave() override { prefix_.pop_back(); }

 private:
  void add(std::string_view name, std::string value) {
    std::string path;
    for (const std::string& part : prefix_) path += part + ".";
    settings.emplace_back(path.append(name), std::move(value));
  }
  std::vector<std::string> prefix_;
};

}  // namespace

void DataConfig::visit(ConfigFields& f) {
  f.field("text", text, "folder (or file) of text to train on");
  f.field("tokens", tokens, "instead of text: a folder made by trireme tokenize");
  f.field("tokenizer", tokenizer, "tokenizer.json to use with text; empty: train one on the text");
  f.field("vocab_size", vocab_size, "tokens of a tokenizer that is trained");
  f.field("validation_fraction", validation_fraction, "share of the text held out for evaluation");
  f.field("max_file_bytes", max_file_bytes, "larger files are skipped");
}

void DataConfig::validate() const {
  if (text.empty() == tokens.empty()) {
    throw_error<ConfigError>(
        "data.text is '{}' and data.tokens is '{}': set one of them, to a folder of text or to a "
        "folder made by trireme tokenize",
        text, tokens);
  }
  if (!tokens.empty() && !tokenizer.empty()) {
    throw_error<ConfigError>("data.tokenizer is '{}', but data.tokens brings its own: leave it out",
                             tokenizer);
  }
  require_at_least("data.vocab_size", vocab_size, 257);
  require_at_least("data.max_file_bytes", max_file_bytes, 1);
  if (!(validation_fraction > 0 && validation_fraction <= 0.5)) {
    throw_error<ConfigError>("data.validation_fraction is {}: above 0 and at most 0.5",
                             validation_fraction);
  }
}

void BatchConfig::visit(ConfigFields& f) {
  f.field("micro_batch_size", micro_batch_size, "sequences in one micro-batch");
  f.field("micro_batches", micro_batches, "micro-batches in one step, over all workers");
}

void BatchConfig::validate() const {
  require_at_least("batch.micro_batch_size", micro_batch_size, 1);
  require_at_least("batch.micro_batches", micro_batches, 1);
}

void StepConfig::visit(ConfigFields& f) {
  f.field("steps", steps, "optimizer updates");
  f.field("dtype", dtype, "what the model computes in; sums and the optimizer are f32 always",
          {"f32", "bf16", "f16"});
  f.field("clip_norm", clip_norm, "bound on the global gradient norm; 0: none");
  f.field("dropout", dropout,
          "share of the embeddings' and of each half block's output that a training pass leaves "
          "out, for small data; 0: none");
  f.field("average_decay", average_decay,
          "keep an exponential moving average of the weights, for evaluation and beside them in "
          "checkpoints; 0.999 is usual, 0: none");
  f.field("init", init, "checkpoint whose weights to start from; empty: random weights");
}

void StepConfig::validate() const {
  require_at_least("train.steps", steps, 1);
  if (dtype == "f16") {
    throw_error<ConfigError>(
        "train.dtype is f16, but the kernels that these models run on compute in f32 and bf16: "
        "take bf16, which needs as little memory and no loss scale. Modules of your own train in "
        "f16 with ShardOptions::dtype and optim::LossScale (docs/data_parallel.md)");
  }
  if (!(clip_norm >= 0)) {
    throw_error<ConfigError>("train.clip_norm is {}: 0 (none) or above", clip_norm);
  }
  if (!(dropout >= 0 && dropout < 1)) {
    throw_error<ConfigError>("train.dropout is {}: 0 (none) or above, and below 1", dropout);
  }
  if (!(average_decay >= 0 && average_decay < 1)) {
    throw_error<ConfigError>("train.average_decay is {}: 0 (none) or above, and below 1",
                             average_decay);
  }
}

void EvaluationConfig::visit(ConfigFields& f) {
  f.field("every", every, "steps between evaluations; 0: only at the end");
  f.field("micro_batches", micro_batches, "micro-batches of the validation split, always the same");
  f.field(
      "required_gain", required_gain,
      "fail unless the final loss is this far below the unigram entropy (nats per token); 0: off");
}

void EvaluationConfig::validate() const {
  require_at_least("evaluation.every", every, 0);
  require_at_least("evaluation.micro_batches", micro_batches, 1);
}

void CheckpointConfig::visit(ConfigFields& f) {
  f.field("every", every, "steps between checkpoints; 0: only the last step");
  f.field("keep", keep, "newest checkpoints that are kept");
}

void CheckpointConfig::validate() const {
  require_at_least("checkpoint.every", every, 0);
  require_at_least("checkpoint.keep", keep, 1);
}

void ServersConfig::visit(ConfigFields& f) {
  f.field("servers", servers,
          "that keep weights and optimizer in place of the workers; 0: none, or as many as trireme "
          "launch --servers has started");
  f.field("consistency", consistency,
          "sync: one update for all workers' gradients; async: one for each's; bounded(k): that, "
          "and none is more than k steps ahead of the slowest");
  f.field("codec", codec, "how gradients travel: empty (f32), bf16, int8 or topk(fraction)");
  f.field("backups", backups, "each range of weights is kept by two servers, where there are two");
  f.field("range_bytes", range_bytes, "of weights that are kept, and travel, together");
}

void ServersConfig::validate() const {
  require_at_least("parallel.ps.servers", servers, 0);
  ps::Consistency::parse(consistency);
  if (!codec.empty()) ps::make_dense_codec(codec);
  require_at_least("parallel.ps.range_bytes", range_bytes, 4 * kShardBlock);
}

bool ServersConfig::is_given() const {
  const ServersConfig usual;
  return servers > 0 || consistency != usual.consistency || codec != usual.codec ||
         backups != usual.backups || range_bytes != usual.range_bytes;
}

void ParallelConfig::visit(ConfigFields& f) {
  f.field("dp", dp,
          "data-parallel ranks, each with other samples; 0: as many as there are workers for");
  f.field("tp", tp,
          "tensor parallelism: workers side by side that compute each sample together, with a part "
          "of every matrix each");
  f.field("sequence", sequence,
          "tp 2 and more: what lies between those matrices is cut by tokens, for less memory");
  f.field("tp_chunks", tp_chunks,
          "tp 2 and more: tokens of a micro-batch are computed in so many runs, each of which "
          "travels while the next is computed; pays between hosts alone");
  f.field(
      "ep", ep,
      "expert parallelism: workers with other samples, each with a part of the experts, to which "
      "tokens travel");
  f.field(
      "cp", cp,
      "context parallelism: workers that compute each sample together, with a part of its tokens "
      "each");
  f.field(
      "cp_method", cp_method,
      "how their attention meets: ring, keys and values go round; ulysses, tokens are exchanged "
      "for heads",
      {"ring", "ulysses"});
  f.field("pp", pp,
          "pipeline parallelism: workers that have the layers between them, and pass each "
          "micro-batch on to one another");
  f.section("pipeline", pipeline, "pp 2 and more: the stages, and how they take turns");
  f.field(
      "shard", shard,
      "what the workers share (ZeRO): 0 nothing, 1 the optimizer's state, 2 and gradients, 3 and "
      "weights");
  f.field(
      "shard_ranks", shard_ranks,
      "shard 1 to 3: workers side by side that keep one copy of the model between them, those of "
      "a host say; 0: all; auto: those of each host, which must have equally many",
      {"auto", kHostRanks});
  f.field("bucket_bytes", bucket_bytes, "gradients that travel together, at least");
  f.field("prefetch", prefetch, "shard 3: blocks whose weights are gathered ahead");
  f.field("gather_budget_bytes", gather_budget_bytes,
          "shard 3: most that gathered weights may take at once; 0: as much as there is");
  f.field("engine", engine, "what carries bytes between ranks",
          {"auto", "shm", "gloo", "shm+gloo", "mpi", "shm+mpi"});
  f.field("network_interface", network_interface,
          "name or address for the gloo engine; empty: the one that reaches rank 0");
  f.section("ps", ps, "parameter servers");
  f.field("timeout_seconds", timeout_seconds, "deadline of each operation between ranks");
  f.field("join_timeout_seconds", join_timeout_seconds, "deadline for all ranks to meet");
}

void ParallelConfig::validate() const {
  require_at_least("parallel.dp", dp, 0);
  require_at_least("parallel.tp", tp, 1);
  require_at_least("parallel.ep", ep, 1);
  require_at_least("parallel.cp", cp, 1);
  require_at_least("parallel.pp", pp, 1);
  pipeline.validate(pp);
  require_at_least("parallel.tp_chunks", tp_chunks, 1);
  if (tp_chunks > 1 && tp == 1) {
    throw_error<ConfigError>(
        "parallel.tp_chunks is {}, but parallel.tp is 1 and nothing travels: leave it out",
        tp_chunks);
  }
  if (cp == 1 && cp_method != "ring") {
    throw_error<ConfigError>(
        "parallel.cp_method is {}, but parallel.cp is 1 and no sequence is cut: leave it out, or "
        "set "
        "parallel.cp to 2 or more",
        cp_method);
  }
  if (sequence && tp == 1) {
    throw_error<ConfigError>(
        "parallel.sequence is true, but parallel.tp is 1 and no matrix is cut: leave it out, or "
        "set "
        "parallel.tp to 2 or more");
  }
  if (shard < 0 || shard > 3) {
    throw_error<ConfigError>("parallel.shard is {}: 0, 1, 2 or 3, a stage of ZeRO", shard);
  }
  if (shard_ranks != kHostRanks) require_at_least("parallel.shard_ranks", shard_ranks, 0);
  if (shard == 0 && shard_ranks != 0) {
    throw_error<ConfigError>(
        "parallel.shard_ranks is {}, but parallel.shard is 0 and nothing is sharded: leave it out, "
        "or set parallel.shard to 1, 2 or 3",
        shard_ranks == kHostRanks ? "auto" : fmt::format("{}", shard_ranks));
  }
  require_at_least("parallel.bucket_bytes", bucket_bytes, 1);
  require_at_least("parallel.prefetch", prefetch, 0);
  require_at_least("parallel.gather_budget_bytes", gather_budget_bytes, 0);
  ps.validate();
  require_positive("parallel.timeout_seconds", timeout_seconds);
  require_positive("parallel.join_timeout_seconds", join_timeout_seconds);
}

std::string ParallelConfig::axes_in_words() const {
  std::vector<std::string> words;
  const auto add = [&](const char* name, std::int64_t size) {
    if (size > 1) words.push_back(fmt::format("parallel.{} {}", name, size));
  };
  add("pp", pp);
  add("ep", ep);
  add("cp", cp);
  add("tp", tp);
  return fmt::format("{}", fmt::join(words, " and "));
}

void ComputeConfig::visit(ConfigFields& f) {
  f.field("threads", threads, "threads of each worker; 0: cores / workers of the host");
  f.field("pin", pin, "keep each thread on cores of its own; off: where the system puts it");
  f.field("recompute", recompute,
          "what the backward pass computes again instead of keeping it, for less memory: the MLPs' "
          "hidden activations, or whole blocks",
          {"none", "activations", "blocks"});
}

void ComputeConfig::validate() const { require_at_least("compute.threads", threads, 0); }

nn::Recompute ComputeConfig::recompute_mode() const {
  return recompute == "blocks"        ? nn::Recompute::kBlocks
         : recompute == "activations" ? nn::Recompute::kActivations
                                      : nn::Recompute::kNone;
}

void TrainConfig::visit(ConfigFields& f) {
  f.field("out", out, "the run's folder; it must not exist yet, or be resumed");
  f.field("seed", seed, "decides initial weights and the order of samples");
  f.section("data", data, "what to train on");
  f.section("model", model, "the network");
  f.section("batch", batch, "what one step sees");
  f.section("train", train, "the loop");
  f.section("optimizer", optimizer, "the method of updates");
  f.section("schedule", schedule, "learning rate");
  f.section("guard", guard, "steps that are passed over");
  f.section("evaluation", evaluation, "loss on the validation split");
  f.section("checkpoint", checkpoint, "what is kept");
  f.section("parallel", parallel, "the mesh and how ranks talk");
  f.section("compute", compute, "threads and memory");
}

void TrainConfig::validate() const {
  if (out.empty()) {
    throw_error<ConfigError>(
        "out is empty: name the folder of this run, for example out=runs/first");
  }
  require_at_least("seed", seed, 0);
  data.validate();
  batch.validate();
  train.validate();
  optimizer.validate();
  schedule.validate();
  guard.validate();
  evaluation.validate();
  checkpoint.validate();
  parallel.validate();
  compute.validate();
  nn::ModelConfig resolved = model;
  resolved.resolve(model.vocab_size > 0 ? model.vocab_size : data.vocab_size);
  validate_model_parallel(resolved);
}

void TrainConfig::validate_model_parallel(const nn::ModelConfig& resolved) const {
  const nn::ExpertsConfig& experts = resolved.experts;
  if (parallel.tp > 1) {
    optimizer.check_takes_parts(fmt::format("parallel.tp {} cuts them", parallel.tp));
    check_tensor_plan(resolved, static_cast<int>(parallel.tp));
    if (experts.count > 0 && parallel.sequence) {
      throw_error<ConfigError>(
          "parallel.sequence is true, but model.experts.count is {}, and experts choose among all "
          "tokens of a micro-batch: leave it out",
          experts.count);
    }
  }
  if (parallel.ep > 1) {
    optimizer.check_takes_parts(fmt::format("parallel.ep {} cuts their stacks", parallel.ep));
    if (experts.count < parallel.ep) {
      throw_error<ConfigError>(
          "parallel.ep is {}, but model.experts.count is {}: each rank of ep needs an expert, so "
          "at "
          "most {} ranks",
          parallel.ep, experts.count, std::max<std::int64_t>(1, experts.count));
    }
  }
  validate_pipeline(resolved);
  if (parallel.cp == 1) return;
  if (resolved.context < 2 * parallel.cp) {
    throw_error<ConfigError>(
        "parallel.cp is {}, but model.context is {}: each rank of cp needs two tokens of a sample "
        "at "
        "least, so at most {} ranks",
        parallel.cp, resolved.context, resolved.context / 2);
  }
  if (parallel.cp_method == "ulysses") check_ulysses(resolved, parallel);
  const bool whole_batch = experts.balance == "loss" && experts.balance_coefficient != 0;
  if (experts.count > 0 && (whole_batch || experts.capacity_factor > 0)) {
    throw_error<ConfigError>(
        "parallel.cp is {}, but {} is reckoned over all tokens of a micro-batch, of which a worker "
        "has a part: take model.experts.balance bias or none, and capacity_factor 0",
        parallel.cp, whole_batch ? "model.experts.balance loss" : "model.experts.capacity_factor");
  }
}

void TrainConfig::validate_pipeline(const nn::ModelConfig& resolved) const {
  if (parallel.pp == 1) return;
  if (parallel.ps.servers > 0) return;  // said elsewhere
  if (parallel.shard == 3 && parallel.gather_budget_bytes > 0) {
    throw_error<ConfigError>(
        "parallel.gather_budget_bytes is {}, but with parallel.pp {} a worker gathers all weights "
        "of "
        "its stages for a step: leave it out",
        parallel.gather_budget_bytes, parallel.pp);
  }
  if (resolved.layers < parallel.pp) {
    throw_error<ConfigError>(
        "parallel.pp is {}, but model.layers is {}: each rank of pp needs a block, so at most {} "
        "ranks",
        parallel.pp, resolved.layers, resolved.layers);
  }
}

TrainConfig load_train_config(const ConfigTree& tree) {
  TrainConfig config;
  bind_config(tree, config);
  config.validate();
  return config;
}

Settings result_settings(const TrainConfig& config) {
  TrainConfig copy = config;
  SettingsCollector collector;
  collector.field("seed", copy.seed, "");
  collector.section("data", copy.data, "");
  collector.section("model", copy.model, "");
  collector.section("batch", copy.batch, "");
  collector.section("train", copy.train, "");
  collector.section("optimizer", copy.optimizer, "");
  collector.section("schedule", copy.schedule, "");
  collector.section("guard", copy.guard, "");
  return collector.settings;
}

Settings model_settings(const nn::ModelConfig& config) {
  nn::ModelConfig copy = config;
  SettingsCollector collector;
  collector.section("model", copy, "");
  return collector.settings;
}

std::string settings_hash(const Settings& settings) {
  std::string text;
  for (const auto& [name, value] : settings) text += name + "=" + value + "\n";
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

}  // namespace trireme
