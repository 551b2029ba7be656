// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// SparseTable: rows of weights by 64-bit id, of which no one knows beforehand which there will be:
// embeddings of words, users, items. A row is made when its first gradient comes. Each has its own
// optimizer state and its own count of steps, and n updates give it the bits that n steps of
// optim::make_optimizer() give a parameter of `width` elements.
//
//   SparseTable table({.name = "users", .width = 64, .optimizer = {.name = "adagrad"}}, seed);
//   table.update(ids, gradients.data(), 0.05, 1.0);  // gradients: [ids.size(), 64]
//   table.read(ids, rows.data());
//
// How it is kept: an index (row_index.h) from id to row number and steps, and the rows with their
// state side by side in large pages (row_store.h). A call works through its ids in batches and
// stages, so that what a stage needs has come from memory when it begins: places in the index are
// asked for, rows are found, rows are asked for, rows are worked on. No row has memory allocated
// for itself, and the table grows in pieces: for a new row some places of the index are moved, and
// now and then the system clears a large page.
//
// One thread at a time may change a table; const functions may run beside each other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "trireme/base/config.h"
#include "trireme/optim/optimizer_config.h"

namespace trireme::ps {

struct SparseTableConfig {
  std::string name;
  std::int64_t width = 64;  // f32 of a row
  // What a row begins with, by the seed, the table's name and the id alone: "uniform" in
  // [-init_scale, init_scale), "normal" with that standard deviation, or "zeros".
  std::string init = "uniform";
  double init_scale = 0.01;
  optim::OptimizerConfig optimizer = {.name = "sgd"};  // sgd, adagrad, adam, adamw, lion

  void visit(ConfigFields& f);
  // Throws ConfigError: a value with its range; a method that needs more than a row to update it
  // (lamb, adafactor, muon); 8-bit state.
  void validate() const;
};

class SparseTable {
 public:
  static constexpr std::int64_t kMaxWidth = 65'536;
  static constexpr std::int64_t kMaxRows = 0xFFFF'FFFE;  // of one table, that is of one slice

  // Throws ConfigError as validate() does.
  SparseTable(const SparseTableConfig& config, std::uint64_t seed);
  SparseTable(SparseTable&&) noexcept;
  SparseTable& operator=(SparseTable&&) noexcept;
  ~SparseTable();

  // One step of each row in ids, in their order, by the gradient times gradient_scale; rows that
  // are not there are made first. The gradient of ids[i] are the `width` f32 from
  // gradients + (positions.empty() ? i : positions[i]) * width. An id that comes twice takes two
  // steps, one after the other; sum its gradients first if it shall take one. The order of
  // different ids does not matter to the rows' values. Cost: about what reading and writing the
  // rows at random costs (bench/sparse_table_bench.cc). Throws ShapeError: positions are neither
  // none nor as many as ids, and then nothing is changed; Error: no memory, or kMaxRows rows, and
  // then which steps of this call were taken is open.
  void update(std::span<const std::uint64_t> ids, const float* gradients, double learning_rate,
              double gradient_scale, std::span<const std::uint32_t> positions = {});

  // The rows' weights to out + (positions.empty() ? i : positions[i]) * width. A row that is not
  // there reads as what it would begin with and is not made. Throws ShapeError as update() does.
  void read(std::span<const std::uint64_t> ids, float* out,
            std::span<const std::uint32_t> positions = {}) const;

  std::int64_t rows() const;
  // Of the rows, their state and the index, in use or kept ready for the next rows.
  std::int64_t memory_bytes() const;
  // F32 of state of a row: its moments, one after the other.
  std::int64_t state_width() const;

  // Some rows as they are.
  struct Block {
    std::span<const std::uint64_t> ids;
    std::span<const float> weights;       // [ids, width]
    std::span<const float> state;         // [ids, state_width()]
    std::span<const std::int64_t> steps;  // [ids]; none above 2^32 - 1, where counting ends
  };
  // Calls f with all rows, most_rows (>= 1) at a time, in the order in which they were made; a
  // block's memory is f's until it returns. f must not change the table.
  void for_each_block(std::int64_t most_rows, const std::function<void(const Block&)>& f) const;
  // Makes these rows, or overwrites them. What for_each_block() gave goes on bit for bit, in any
  // table of the same config and seed. Throws ShapeError: spans that do not fit each other, steps
  // out of range; Error as update() does.
  void import(const Block& block);
  // Throws ShapeError as import() does.
  void check(const Block& block) const;
  // No rows, and their memory given back.
  void clear();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme::ps
