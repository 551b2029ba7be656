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
// checkpoint.json is written last and holds the xxh3-64 of every file and of itself; a flipped bit
// is found on load. docs/checkpoint.md describes the format.
//
//   CheckpointWriter writer(run + "/checkpoints", step);
//   writer.add_tensors("model.safetensors", tensors);
//   writer.commit({{"optimizer_step", std::to_string(step)}});
//   prune_checkpoints(run + "/checkpoints", 3);
//
//   const Checkpoint checkpoint = Checkpoint::open(resolve_checkpoint(run));
//   const SafetensorsFile weights = checkpoint.tensors("model.safetensors");
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/checkpoint/safetensors.h"

namespace trireme {

// What stands in checkpoint.json beside the file list: flat strings, numbers as text.
// Keys in use: see train/model_state.h.
using CheckpointState = std::map<std::string, std::string>;

// One file of a checkpoint. digest: xxh3-64 of its bytes as 16 hex digits.
struct CheckpointFile {
  std::string name;
  std::uint64_t size_bytes = 0;
  std::string digest;
};

namespace detail {
class FolderLock;
}

// Writes one checkpoint. At most one writer may be alive per folder, in any process: the folder is
// locked until commit() or destruction (the lock of a killed process is gone with it).
class CheckpointWriter {
 public:
  // Starts <folder>/step-<step>.tmp; makes folder where it is missing. What killed writers left in
  // folder is cleared first. Throws CheckpointError with the system's reason, or when another
  // writer is at work there.
  CheckpointWriter(std::string folder, std::int64_t step);
  // Removes the temporary folder unless commit() was reached.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Adds a safetensors file of that name (without folder). Written and fsynced on return, so the
  // tensors may change then. Throws ConfigError for a name that is taken or no plain file name,
  // CheckpointError with the system's reason, and what SafetensorsWriter::add throws.
  void add_tensors(const std::string& file,
                   const std::vector<std::pair<std::string, TensorView>>& tensors);
  // Adds any other file by its content.
  void add_file(const std::string& file, std::string_view content);
  // Where another process, on storage that both share, may write a file of that name, which
  // adopt_file() then adds. Throws ConfigError as add_tensors() does.
  std::string path_for(const std::string& file) const { return new_file(file); }
  // digest: as detail::OutputFile gives it to whoever wrote the file. Throws CheckpointError when
  // the file is not there.
  void adopt_file(const std::string& file, const std::string& digest);
  // Writes checkpoint.json, fsyncs, renames. Returns the final path. An existing checkpoint of the
  // same step is replaced: renamed aside, removed once the new one stands; a process killed in
  // between leaves the old one, whole, where list_checkpoints() finds it. Nothing may be added
  // afterwards. Throws CheckpointError with the system's reason, ConfigError when state is not
  // UTF-8.
  std::string commit(const CheckpointState& state);

 private:
  std::string new_file(const std::string& file) const;

  std::string folder_;
  std::int64_t step_;
  std::string temporary_;
  std::unique_ptr<detail::FolderLock> lock_;
  std::vector<CheckpointFile> files_;
  bool committed_ = false;
};

// A checkpoint on disk whose files have been verified against their digests.
class Checkpoint {
 public:
  // path: a checkpoint folder. Throws CheckpointError: missing, not a checkpoint, a newer format
  // version, a file missing, truncated or damaged (which one, expected and found size or digest).
  // Reads every byte once.
  static Checkpoint open(const std::string& path);

  const std::string& path() const { return path_; }
  std::int64_t step() const { return step_; }
  const CheckpointState& state() const { return state_; }
  // Throws CheckpointError when the key is missing.
  const std::string& state_at(const std::string& key) const;
  const std::vector<CheckpointFile>& files() const { return files_; }
  // One of files(). Throws CheckpointError for any other, even if it lies in the folder.
  SafetensorsFile tensors(const std::string& file) const;
  std::string file(const std::string& file) const;

 private:
  const CheckpointFile& record_of(const std::string& file) const;

  std::string path_;
  std::int64_t step_ = 0;
  CheckpointState state_;
  std::vector<CheckpointFile> files_;
};

// Paths of the committed checkpoints in folder, lowest step first; empty when there is no such
// folder. Opens none of them and changes nothing. Throws CheckpointError when folder cannot be
// read.
std::vector<std::string> list_checkpoints(const std::string& folder);

// Removes all checkpoints but those of the keep (>= 1) highest steps. Each is renamed to a
// temporary name first, so that no half checkpoint is ever seen. Throws CheckpointError with the
// system's reason, or while a writer is at work in folder; ConfigError for keep < 1.
void prune_checkpoints(const std::string& folder, std::int64_t keep);

// What a user means by path: a checkpoint folder itself, a run folder (its newest checkpoint), or a
// folder of checkpoints (the newest: that of the highest step). Throws CheckpointError saying what
// was looked for.
std::string resolve_checkpoint(const std::string& path);

}  // namespace trireme
