// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Everything that one training run is told: the YAML file of `trireme train`, one struct per
// component.
//
//   const ConfigTree tree = ConfigTree::load("train.yaml", overrides);
//   const TrainConfig config = load_train_config(tree);       // bound and validated, or
//   ConfigError
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/nn/model_config.h"
#include "trireme/nn/recompute.h"
#include "trireme/optim/gradient_guard.h"
#include "trireme/optim/optimizer_config.h"
#include "trireme/optim/schedule.h"
#include "trireme/train/pipeline_config.h"

namespace trireme {

struct DataConfig {
  std::string text;       // folder or file of text; or
  std::string tokens;     // folder made by `trireme tokenize`
  std::string tokenizer;  // tokenizer.json to use with text; empty: train one
  std::int64_t vocab_size = 4096;
  double validation_fraction = 0.01;
  std::int64_t max_file_bytes = std::int64_t{64} << 20;

  void visit(ConfigFields& f);
  void validate() const;
};

struct BatchConfig {
  std::int64_t micro_batch_size = 8;  // sequences computed together: the unit of numerics
  std::int64_t micro_batches = 4;     // in a step, over all workers

  void visit(ConfigFields& f);
  void validate() const;
};

struct StepConfig {
  std::int64_t steps = 1000;
  std::string dtype = "f32";
  double clip_norm = 1.0;
  double dropout = 0;  // share of what embeddings and blocks add to the stream (nn/dropout.h)
  double average_decay =
      0;             // of the moving average of the weights (optim/weight_average.h); 0: none
  std::string init;  // checkpoint whose weights to start from; empty: random weights

  void visit(ConfigFields& f);
  void validate() const;
};

struct EvaluationConfig {
  std::int64_t every = 200;         // steps; 0: only at the end
  std::int64_t micro_batches = 16;  // of the validation split, the same at each evaluation
  // The run fails unless the final validation loss is at least this far, in nats per token, below
  // the unigram entropy of the same tokens. 0: not asked for.
  double required_gain = 0.0;

  void visit(ConfigFields& f);
  void validate() const;
};

struct CheckpointConfig {
  std::int64_t every = 200;  // steps; the last step is always saved. 0: only the last
  std::int64_t keep = 3;

  void visit(ConfigFields& f);
  void validate() const;
};

// Parameter servers (ps/worker.h).
struct ServersConfig {
  std::int64_t servers = 0;  // 0: none, but for those that a launcher has started
  std::string consistency = "sync";
  std::string codec;
  bool backups = true;
  std::int64_t range_bytes = std::int64_t{4} << 20;

  void visit(ConfigFields& f);
  void validate() const;
  // Something is said that is of no use without servers.
  bool is_given() const;
};

struct ParallelConfig {
  std::int64_t dp = 0;             // data-parallel ranks; 0: as many as there are workers for
  std::int64_t tp = 1;             // ranks among whom matrices are cut (tensor parallelism)
  bool sequence = false;           // with tp, activations between the cut matrices, by tokens
  std::int64_t tp_chunks = 1;      // of rows, whose exchanges go on beside others' products
  std::int64_t ep = 1;             // ranks among whom experts are cut (expert parallelism)
  std::int64_t cp = 1;             // ranks among whom sequences are cut (context parallelism)
  std::string cp_method = "ring";  // or ulysses
  std::int64_t pp = 1;             // ranks among whom layers are cut (pipeline parallelism)
  PipelineConfig pipeline;
  std::int64_t shard = 0;  // ZeRO stage
  // That keep one copy of the model between them; 0: all; kHostRanks ("auto"): those of a host.
  std::int64_t shard_ranks = 0;
  std::int64_t bucket_bytes = std::int64_t{25} << 20;
  std::int64_t prefetch = 1;             // stage 3: units
  std::int64_t gather_budget_bytes = 0;  // stage 3; 0: as much as there is
  std::string engine = "auto";
  std::string network_interface;
  ServersConfig ps;
  double timeout_seconds = 300;
  double join_timeout_seconds = 1800;  // other ranks wait this long while rank 0 prepares the data

  void visit(ConfigFields& f);
  void validate() const;
  // Workers for one data-parallel rank.
  std::int64_t ranks_of_a_replica() const { return pp * ep * cp * tp; }
  // "parallel.ep 2 and parallel.tp 4": of more than one rank.
  std::string axes_in_words() const;
};

struct ComputeConfig {
  std::int64_t threads = 0;  // of each worker; 0: the host's cores shared among its workers
  bool pin = true;           // each thread to cores of its own
  std::string recompute = "none";

  void visit(ConfigFields& f);
  void validate() const;
  nn::Recompute recompute_mode() const;
};

struct TrainConfig {
  std::string out;  // the run's folder
  std::int64_t seed = 1;
  DataConfig data;
  nn::ModelConfig model;
  BatchConfig batch;
  StepConfig train;
  optim::OptimizerConfig optimizer;
  optim::ScheduleConfig schedule;
  optim::GuardConfig guard;
  EvaluationConfig evaluation;
  CheckpointConfig checkpoint;
  ParallelConfig parallel;
  ComputeConfig compute;

  void visit(ConfigFields& f);
  // parallel's axes against the model, resolved. Throws ConfigError.
  void validate_model_parallel(const nn::ModelConfig& resolved) const;
  // parallel.pp and its stages against the model. Throws ConfigError.
  void validate_pipeline(const nn::ModelConfig& resolved) const;
  // All components, and what they ask of one another. model.resolve() is called by the run, once
  // the tokenizer is known. Throws ConfigError.
  void validate() const;
};

TrainConfig load_train_config(const ConfigTree& tree);

// Settings as dotted names with their values as text, in declaration order.
using Settings = std::vector<std::pair<std::string, std::string>>;

// Those of the settings that decide the result of a run: not where it runs, what it prints, or what
// it keeps. Runs that agree in them train the same model.
Settings result_settings(const TrainConfig& config);

// The settings of a model config alone, named "model.width" and so on.
Settings model_settings(const nn::ModelConfig& config);

// xxh3-64 of settings, 16 hex digits.
std::string settings_hash(const Settings& settings);

}  // namespace trireme
