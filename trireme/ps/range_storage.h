// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RangeStorage: the values of one range on one server, and the update rule. Both replicas of a
// range apply the same updates in the same order and hold the same bits.
//
// An update is bytes: the sum of contributions, made once by the primary. Contributions and updates
// of dense ranges are f32 elements; those of slices are rows (row_request.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/ps/job_layout.h"

namespace trireme::ps {

using Bytes = std::span<const std::byte>;

struct UpdateScalars {
  double learning_rate = 0;
  double gradient_scale = 1;  // of the sum
};

// What a worker pushes, or wants to read.
struct Contribution {
  Bytes payload;
  std::string codec = {};       // of a dense gradient; empty: f32
  std::string_view lists = {};  // of rows that are used in place (row_request.h)
};

// One thread at a time.
class RangeStorage {
 public:
  virtual ~RangeStorage() = default;

  // The first values: as export_state() gives them, or (dense) the weights alone, or (slices)
  // nothing. Throws ProtocolError or ShapeError.
  virtual void init(Bytes values) = 0;
  // Throws what init() would, before anything is changed.
  virtual void check_init(Bytes values) const = 0;
  // Throws ProtocolError for a payload that is no contribution to this range.
  virtual void check(const Contribution& contribution) const = 0;
  // The sum of contributions (in the order of ranks; at least one), in the tree of
  // reduction_tree.h. make gives the memory for it. Throws ProtocolError for payloads that are no
  // contributions to this range, before anything is changed.
  virtual std::span<std::byte> sum(
      std::span<const Contribution> contributions,
      const std::function<std::span<std::byte>(std::size_t)>& make) = 0;
  // Of squares, by block of kShardBlock elements; none for slices.
  virtual std::vector<double> block_sums(Bytes update) = 0;
  // Throws ProtocolError as sum() does.
  virtual void apply(const Contribution& update, const UpdateScalars& scalars) = 0;
  // The same as sum() and apply(), and read() into each of `outs`, bit for bit, in one pass over
  // memory; only where one_pass(). outs: of read_bytes() each.
  virtual bool one_pass() const { return false; }
  virtual void sum_apply_read(std::span<const Contribution> contributions,
                              const UpdateScalars& scalars,
                              std::span<const std::span<std::byte>> outs);

  // What a request reads: bytes, and the values into out. Throws ProtocolError.
  virtual std::size_t read_bytes(const Contribution& request) const = 0;
  virtual void read(const Contribution& request, std::span<std::byte> out) const = 0;

  // All of it, bit for bit, in parts of some size; import_state() wants all parts, as one piece.
  virtual void export_state(const std::function<void(Bytes part)>& take) const = 0;
  virtual void import_state(Bytes state) = 0;

  virtual std::int64_t rows() const { return 0; }
  virtual std::int64_t memory_bytes() const = 0;
};

// Of the range of that number.
std::unique_ptr<RangeStorage> make_dense_storage(const JobLayout& layout, std::size_t range);
std::unique_ptr<RangeStorage> make_slice_storage(const JobLayout& layout);
std::unique_ptr<RangeStorage> make_storage(const JobLayout& layout, std::size_t range);

// States of slices for another number of them: each row in the slice that its id has now. Throws
// ProtocolError for bytes that are no states of such tables.
std::vector<std::vector<std::byte>> deal_slices(const SparseLayout& sparse,
                                                std::span<const std::vector<std::byte>> states);

}  // namespace trireme::ps
