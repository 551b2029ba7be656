// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The folder of one run: what lies where, and who may write it.
//
//   <out>/config.yaml       the settings as resolved        metrics.jsonl   a line per step and
//   evaluation
//         tokenizer.json    of this run                     summary.json    the final table
//         data/             token shards                    events.out...   for TensorBoard
//         checkpoints/      see checkpoint/checkpoint.h     .lock           held while a run is
//         under way
//         pipeline_trace.json  the timeline of one step, with a pipeline
#pragma once

#include <string>

namespace trireme {

// Paths only. Constant after construction.
class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string config() const { return path_ + "/config.yaml"; }
  std::string tokenizer() const { return path_ + "/tokenizer.json"; }
  std::string data() const { return path_ + "/data"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }
  std::string summary() const { return path_ + "/summary.json"; }
  std::string pipeline_trace() const { return path_ + "/pipeline_trace.json"; }

 private:
  std::string path_;
};

// The right to write a run's folder, from construction to destruction. The kernel drops it when the
// process ends, however it ends.
class RunFolderLock {
 public:
  // New run: makes the folder and its parents. Resumed run: the folder must be there and hold a
  // config.yaml. Throws ConfigError: a folder (or file) that exists already, one that is no run, no
  // permission, another process at work in it.
  RunFolderLock(const RunFolder& folder, bool resume);
  ~RunFolderLock();
  RunFolderLock(const RunFolderLock&) = delete;
  RunFolderLock& operator=(const RunFolderLock&) = delete;

  // Removes what the constructor made, for a run that was refused before it began.
  void abandon();

 private:
  std::string path_;
  std::string first_made_;  // topmost folder that the constructor made; empty if none
  int fd_ = -1;
};

}  // namespace trireme
