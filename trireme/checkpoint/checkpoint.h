// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Checkpoints: folders that are whole or not there.
//
//   <run>/checkpoints/step-00000400/
//     model.safetensors       the weights, f32, by parameter name
//     optimizer.safetensors   the optimizer's state
//     tokenizer.json          so that the folder alone can generate text
//     checkpoint.json         format version, step, state, digest and size of every other file
//
// Written under a temporary name in the same folder, every file and the folder fsynced, then
// renamed: a process killed at any moment leaves the previous checkpoints as they were.
// checkpoint.json is written last and holds the xxh3-64 of every file; a flipped bit is found on
// load.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "trireme/checkpoint/safetensors.h"

namespace trireme {

// What stands in checkpoint.json beside the file list: flat strings, numbers as text.
// Keys in use: see train/train_state.h.
using CheckpointState = std::map<std::string, std::string>;

class CheckpointWriter {
 public:
  // Starts <folder>/step-<step>.tmp. Leftover temporaries of killed writers in folder are removed
  // first. Throws CheckpointError with the system's reason.
  CheckpointWriter(std::string folder, std::int64_t step);
  // Removes the temporary folder unless commit() was reached.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Adds a safetensors file of that name (without folder).
  void add_tensors(const std::string& file,
                   const std::vector<std::pair<std::string, TensorView>>& tensors);
  // Adds any other file by its content.
  void add_file(const std::string& file, std::string_view content);
  // Writes checkpoint.json, fsyncs, renames. Returns the final path. An existing checkpoint of the
  // same step is replaced atomically (renamed aside, then removed). Nothing may be added
  // afterwards.
  std::string commit(const CheckpointState& state);

 private:
  struct FileRecord;
  std::string folder_;
  std::int64_t step_;
  std::string temporary_;
  std::vector<FileRecord> files_;
  bool committed_ = false;
};

// A checkpoint on disk whose files have been verified against their digests.
class Checkpoint {
 public:
  // path: a checkpoint folder. Throws CheckpointError: missing, not a checkpoint, a newer format
  // version, a file missing, truncated or damaged (which one, expected and found size or digest).
  static Checkpoint open(const std::string& path);

  const std::string& path() const { return path_; }
  std::int64_t step() const { return step_; }
  const CheckpointState& state() const { return state_; }
  // Throws CheckpointError when the key is missing.
  const std::string& state_at(const std::string& key) const;
  SafetensorsFile tensors(const std::string& file) const;
  std::string file(const std::string& file) const;

 private:
  std::string path_;
  std::int64_t step_ = 0;
  CheckpointState state_;
};

// Paths of the committed checkpoints in folder, oldest step first; empty when there is no such
// folder. Opens none of them.
std::vector<std::string> list_checkpoints(const std::string& folder);

// Removes all but the newest keep (>= 1) checkpoints. Each is renamed to a temporary name first, so
// that no half checkpoint is ever seen.
void prune_checkpoints(const std::string& folder, std::int64_t keep);

// What a user means by path: a checkpoint folder itself, a run folder (its newest checkpoint), or a
// folder of checkpoints (the newest). Throws CheckpointError saying what was looked for.
std::string resolve_checkpoint(const std::string& path);

}  // namespace trireme
