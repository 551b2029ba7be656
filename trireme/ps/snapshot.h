// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Snapshots of what servers hold: a checkpoint (checkpoint/checkpoint.h) whose files, one for each
// range, are written by the servers themselves.
//
//   step-00000400/
//     dense-000000000000-000001048576.safetensors   elements [begin, end) of the flat parameters
//     slice-00003-of-00008.safetensors              of all tables: ids, steps, weights, state
//     checkpoint.json                               every file's size and digest, written last
//
// Whoever coordinates opens the snapshot, has each server write its parts, and commits:
//
//   SnapshotWriter snapshot(run + "/snapshots", step);
//   // on each server, of each of its ranges:
//   CheckpointFile part = write_slice_part(snapshot.folder(), slice, num_slices, tables);
//   // here again:
//   snapshot.add(part);
//   snapshot.commit({{"epoch", "3"}});
//
// Before commit() nothing is there, afterwards all of it. Whoever reads asks for its slice of any
// number of slices, and for any elements: the layout may be another one than that of the writers.
//
//   const Snapshot snapshot(path);
//   snapshot.read_slice(slice, num_slices, tables);
//
// Parts are read through once to check their digest, then block by block; nothing is held but what
// is asked for, and files that hold nothing of it are not opened.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/optim/optimizer.h"
#include "trireme/ps/sparse_table.h"

namespace trireme::ps {

// Elements of the flat parameters with what their optimizer knows.
struct DensePart {
  FlatSegment elements;
  std::int64_t steps = 0;
  std::span<float> weights;                      // as many as elements
  std::span<const optim::OptimizerState> state;  // Optimizer::state(); f32, on the CPU
};

// Write one part into the folder of a snapshot under way, fsynced on return. Any process that sees
// the folder; each part once. Throw CheckpointError with the system's reason.
CheckpointFile write_slice_part(const std::string& folder, int slice, int num_slices,
                                std::span<const SparseTable* const> tables);
CheckpointFile write_dense_part(const std::string& folder, const DensePart& part);

// For whoever coordinates. At most one at a time is alive for a folder, in any process.
class SnapshotWriter {
 public:
  // Throws CheckpointError as CheckpointWriter does.
  SnapshotWriter(const std::string& folder, std::int64_t step);

  // Where the parts are written: for write_slice_part() and write_dense_part().
  const std::string& folder() const { return writer_.folder(); }
  // A part that is written. Throws CheckpointError where the file is not there in that size.
  void add(const CheckpointFile& part) { writer_.adopt(part); }
  // Returns the path of the snapshot. Throws CheckpointError: slices or elements that no part
  // holds, or that two hold; otherwise as CheckpointWriter::commit().
  std::string commit(const CheckpointState& state);

 private:
  CheckpointWriter writer_;
};

// A snapshot on disk. Constant after construction; any thread.
class Snapshot {
 public:
  // Throws CheckpointError: no snapshot, damaged, of a newer version, incomplete.
  explicit Snapshot(const std::string& path);

  std::int64_t step() const { return checkpoint_.step(); }
  const CheckpointState& state() const { return checkpoint_.state(); }
  int num_slices() const { return num_slices_; }  // 0: no tables
  std::int64_t dense_elements() const { return dense_elements_; }

  // Replaces what the tables hold by the rows of that slice: all tables of the snapshot, found by
  // their names. Throws CheckpointError, naming the file: a part that is missing or damaged; tables
  // that the snapshot lacks or has more, of another width or another method's state. Tables are
  // empty then.
  void read_slice(int slice, int num_slices, std::span<SparseTable* const> tables) const;
  // Fills weights and the values of state, and returns the steps. state: Optimizer::state(), of the
  // same method as what wrote it; set_state() takes it then. Throws CheckpointError as above.
  std::int64_t read_dense(const DensePart& part) const;

 private:
  struct Part;
  Checkpoint checkpoint_;
  std::vector<Part> parts_;
  int num_slices_ = 0;
  std::int64_t dense_elements_ = 0;
};

}  // namespace trireme::ps
