// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// JobLayout: what a job keeps on its servers, and in which ranges. The workers declare it when they
// join, all the same; servers learn it from the coordinator.
//
// Dense parameters are one flat buffer (optim/flat_layout.h), cut into ranges of about range_bytes
// at blocks; methods that look at whole parameters (lamb, adafactor, muon) are cut only between
// parameters. Sparse tables are cut by a hash of the row's id into slices (slices.h): slice s of
// all tables is one range. Dense ranges are numbered first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/optim/optimizer.h"
#include "trireme/ps/protocol/view.h"
#include "trireme/ps/sparse_table.h"

namespace trireme::ps {

struct DenseLayout {
  std::vector<optim::OptimizerParameter> parameters;  // ascending
  std::int64_t size = 0;                              // elements, a multiple of kShardBlock
  optim::OptimizerConfig optimizer;
};

struct SparseLayout {
  std::vector<SparseTableConfig> tables;
  int slices = 0;
  std::uint64_t seed = 0;  // of the rows' initial values
};

struct JobLayout {
  Consistency consistency = Consistency::sync();
  // Gradients are summed first, and applied when a worker has seen the sum's norm (Worker::commit).
  bool two_phases = false;
  bool backups = true;  // each range on two servers
  std::int64_t range_bytes = std::int64_t{4} << 20;
  DenseLayout dense;
  SparseLayout sparse;
  // Steps that were trained before the job began, and what else its workers must agree in:
  // compared, and told to who joins later, not interpreted.
  std::int64_t first_step = 0;
  std::string settings;

  // Elements of each dense range; they are the whole buffer. Throws ConfigError: a size that is no
  // multiple of kShardBlock, parameters out of order.
  std::vector<FlatSegment> dense_ranges() const;
  // What the optimizer of a dense range works on: the parameters as far as they lie in it.
  optim::OptimizerSpace dense_space(std::size_t range) const;
  std::size_t num_ranges() const { return dense_ranges().size() + num_slices(); }
  std::size_t num_slices() const {
    return sparse.tables.empty() ? 0 : static_cast<std::size_t>(sparse.slices);
  }
  // Of each range, by number: of dense ones the weights' bytes; slices, which grow, count as a
  // share of them, or as 1.
  std::vector<std::int64_t> range_bytes_by_number() const;
  // Throws ConfigError.
  void validate() const;

  // As bytes and back. Equal for equal layouts. Throws ProtocolError for bytes that are none.
  std::string encode() const;
  static JobLayout decode(std::string_view bytes);
};

// Where workers and servers lay out a job differently: the first difference, for a message.
std::string layout_difference(const JobLayout& ours, const JobLayout& theirs);

}  // namespace trireme::ps
