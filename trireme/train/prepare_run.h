// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Everything that can be refused, refused before any worker starts; then the run's folder and its
// data.
//
//   PreparedRun run = prepare_run(config, {.resume = false, .workers = 2});   // the launcher, or
//   rank 0 TrainData data = open_train_data(config);                                // every rank,
//   after that
#pragma once

#include <memory>
#include <string>

#include "trireme/data/token_shards.h"
#include "trireme/data/tokenizer.h"
#include "trireme/train/run_folder.h"
#include "trireme/train/train_config.h"

namespace trireme {

struct PrepareRunOptions {
  bool resume = false;
  int workers = 1;
  int local_workers = 1;  // on this host
  int threads = 1;        // of each worker
};

// Checks the config against the number of workers, this host's memory (memory_estimate.h), the
// text, the run's folder and, when it resumes, the settings that the run began with; makes the
// folder; tokenizes (with progress on stderr);
// writes config.yaml and tokenizer.json. One process of a job calls it and keeps the lock while the
// job runs. Throws ConfigError, DataError, CheckpointError; a new folder is removed again then.
std::unique_ptr<RunFolderLock> prepare_run(const TrainConfig& config,
                                           const PrepareRunOptions& options);

// The mesh of a run against its workers, local_workers of them on this host, the step's
// micro-batches, ZeRO, the pipeline's stages. Throws ConfigError with the numbers that clash and
// what would fit.
void check_layout(const TrainConfig& config, int workers, int local_workers);

// What prepare_run() left for the ranks.
struct TrainData {
  Tokenizer tokenizer;
  TokenShards train;
  TokenShards validation;
};

// Resolves config.model as far as it is known before there are data: by the tokenizer that the
// config names, or that prepared tokens have, where it is there; else by the size that is asked
// for. Throws ConfigError, DataError.
void resolve_without_data(TrainConfig& config);

// Opens the data and resolves config.model against the tokenizer. Throws DataError, naming the
// folder: it must be on storage that all hosts share.
TrainData open_train_data(TrainConfig& config);

}  // namespace trireme
