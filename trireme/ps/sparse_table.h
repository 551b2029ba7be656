// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// SparseTable: rows of f32 by 64-bit id, made when they are first updated, with an optimizer that
// touches only the rows that have a gradient. One slice of an embedding table, on one server.
//
//   SparseTable table({.name = "users", .width = 64, .optimizer = {.name = "adagrad"}}, seed);
//   table.update(ids, gradients, /*learning_rate=*/0.1, /*gradient_scale=*/1.0);
//   table.read(ids, rows);
//
// A row begins with values that depend on the seed, the table's name and its id alone, so that no
// one needs to have asked for it first, and the number of servers is not part of the result. Each
// row counts its own updates: after n of them it holds the bits that optim::make_optimizer() gives
// a parameter of the row's size after n steps. Weight decay, too, acts on updated rows alone.
//
// Memory. The rows lie one after the other in the order of their first update, in blocks that
// double, each row with its state behind its weights. The index is a hash table of pieces of 1 MiB:
// 16 bytes a slot {id, row, steps}, open addressing. A piece that is 11/16 full divides in two, so
// that growth costs the update during which it happens under a millisecond, however many rows there
// are. Ids of one call are worked on in groups, whose slots and rows are all on their way from
// memory before the first is needed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/optim/optimizer_config.h"

namespace trireme {
class ConfigFields;
}

namespace trireme::ps {

struct SparseTableConfig {
  std::string name;              // unlike that of any other table of the job
  std::int64_t width = 0;        // f32 values of a row, at most kMaxRowWidth
  std::string init = "uniform";  // "uniform" in [-scale, scale), "normal" with that deviation, "zeros"
  double init_scale = 0.01;
  optim::OptimizerConfig optimizer = {.name = "sgd"};

  static constexpr std::int64_t kMaxRowWidth = 65536;

  void visit(ConfigFields& f);
  // Throws ConfigError: a value with its range; lamb, adafactor and muon, which look at more than
  // the row; 8-bit state, whose blocks are of 256 elements.
  void validate() const;
};

// Not thread-safe: one thread at a time, but any number of read() and for_each_block() at once
// where nobody changes the table.
class SparseTable {
 public:
  // Throws ConfigError as SparseTableConfig::validate() does.
  SparseTable(const SparseTableConfig& config, std::uint64_t seed);
  ~SparseTable();
  SparseTable(SparseTable&&) noexcept;
  SparseTable& operator=(SparseTable&&) noexcept;

  // One step of the optimizer for each id, with the gradient at gradients + i width, or at
  // gradients + positions[i] width where positions are given. Makes rows that are not there. The
  // order of ids does not matter, but that an id which comes twice takes two steps, in the order
  // of the call: callers who mean one step add up its gradients first. Blocks. Throws
  // std::bad_alloc; ids before the one that found no memory may be updated then.
  void update(std::span<const std::uint64_t> ids, const float* gradients, double learning_rate,
              double gradient_scale, std::span<const std::uint32_t> positions = {});

  // Writes the weights of ids[i] to out + i width, or to out + positions[i] width. A row that is
  // not there is read as it would begin, and not made.
  void read(std::span<const std::uint64_t> ids, float* out,
            std::span<const std::uint32_t> positions = {}) const;

  const SparseTableConfig& config() const;
  std::int64_t rows() const;
  std::int64_t state_width() const;  // f32 values of state of a row
  std::vector<std::string> state_names() const;  // each of width values, in this order
  // Of rows, state and index; what is reserved beyond is not counted.
  std::int64_t memory_bytes() const;

  // Rows as they are: all of a row, bit for bit.
  struct Block {
    std::span<const std::uint64_t> ids;
    std::span<const std::int64_t> steps;  // updates so far
    std::span<const float> weights;       // [ids, width]
    std::span<const float> state;         // [ids, state_width]
  };
  // Calls f with rows [begin, begin + count), in the order in which they were made; begin + count is
  // at most rows(). For whoever exports a table piece by piece, between updates.
  void with_rows(std::int64_t begin, std::int64_t count,
                 const std::function<void(const Block&)>& f) const;
  // Calls f with blocks of at most that many rows (>= 1), which together are the table.
  void for_each_block(std::int64_t most_rows, const std::function<void(const Block&)>& f) const;
  // Adds the rows of a block, in place of those with the same ids. Throws ShapeError for a block
  // whose parts do not fit each other, or whose steps are negative; the table is then as it was.
  void import(const Block& block);
  // Forgets all rows.
  void clear();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme::ps
