// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a sparse table is held against: a std::map of rows, and what its tests share.
#pragma once

#include <rapidcheck.h>

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "trireme/optim/row_update.h"
#include "trireme/ps/row_init.h"
#include "trireme/ps/sparse_table.h"

namespace trireme::testing {

struct Row {
  std::vector<float> weights;
  std::vector<float> state;
  std::int64_t steps = 0;
  bool operator==(const Row& other) const;  // bit by bit
};
using Rows = std::map<std::uint64_t, Row>;

std::vector<std::uint32_t> bits_of(std::span<const float> values);
// All that for_each_block() gives.
Rows rows_of(const ps::SparseTable& table);
// Other values for each id, element and step.
std::vector<float> gradient_of(std::uint64_t id, std::int64_t width, std::uint64_t step);
// Some hundreds at most, of few so that they come again, with the first and the last of all ids and
// many that share a home in the index.
rc::Gen<std::vector<std::uint64_t>> arbitrary_ids();

class TableModel {
 public:
  TableModel(const ps::SparseTableConfig& config, std::uint64_t seed);

  void update(std::span<const std::uint64_t> ids, const float* gradients, double learning_rate,
              double gradient_scale);
  std::vector<float> read(std::span<const std::uint64_t> ids) const;  // [ids, width]
  void clear() { rows_.clear(); }
  const Rows& rows() const { return rows_; }

 private:
  std::vector<float> beginning(std::uint64_t id) const;

  std::int64_t width_;
  ps::RowInit init_;
  optim::RowUpdate method_;
  Rows rows_;
};

}  // namespace trireme::testing
