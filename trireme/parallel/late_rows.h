// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// LateRows: lets the gradient of an embedding's matrix leave before the embedding's own part of it
// is there.
//
// A language model's embedding is mostly its output matrix too. The output's part of the gradient
// is the first that a backward pass adds and the embedding's the very last, so that the matrix, a
// third of GPT-2's gradients, would travel when nothing is left to compute beside it. But the
// embedding adds to few rows: those of the batch's tokens. So once everything else is added the
// rows of this rank's tokens are set apart, where the embedding adds from then on; the matrix
// leaves, and the rows that any rank has set apart follow at the end of the pass.
//
//   backward   output |  block 11 .. block 0  | embedding
//   travels         matrix | blocks .. | .. blocks | rows
//
// The sums are the same, bit for bit: each element is added up in the order in which it would have
// been. Where the rows are more than half of all, the matrix leaves at the end as before.
//
// Internal to GradientReducer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trireme/ops/parameter_gradient.h"
#include "trireme/parallel/module_layout.h"

namespace trireme {

class Group;

// The way of one pass's matrix, on the communication thread.
class MatrixTravel {
 public:
  using Exchange = std::function<void(Group&, const at::Tensor& sum)>;

  // chain: what GradientTree::chain() gives for the matrix [V, C]. marks: [V], not 0 for rows that
  // this rank sets apart.
  MatrixTravel(std::vector<at::Tensor> chain, std::vector<std::uint8_t> marks);

  // The ranks agree on the rows that are late. Before all below. Collective, blocking, V bytes.
  void agree(Group& group);
  // A bucket that has some of the matrix: folded and exchanged now, or in finish().
  void send(Group& group, std::vector<at::Tensor> bucket, Exchange exchange);
  // rows: i64 [R], those of this rank that were set apart, and their sums [R, C]; undefined where
  // none were. The late rows are folded, exchanged [n C], and put in their places. Collective.
  void finish(Group& group, const at::Tensor& rows, const at::Tensor& sums,
              const Exchange& exchange_rows);

 private:
  struct Bucket {
    std::vector<at::Tensor> chain;
    Exchange exchange;
  };

  std::vector<at::Tensor> chain_;  // each [V, C]
  std::vector<std::uint8_t> marks_;
  bool at_the_end_ = false;       // the whole matrix
  at::Tensor rows_;               // i64 [n], ascending: those of all ranks
  std::vector<at::Tensor> late_;  // [n, C], by link of the chain
  std::vector<Bucket> waiting_;
};

// The computing thread's side. Not thread-safe.
class LateRows {
 public:
  // The entry of the largest matrix of at least that many elements that is looked up in loss's
  // graph, and to which ops/ adds directly; none: nullopt.
  static std::optional<std::size_t> find(const at::Tensor& loss, const ModuleLayout& layout,
                                         std::int64_t least_elements);

  LateRows(const ModuleLayout& layout, std::size_t entry);

  std::size_t entry() const { return entry_; }
  // A pass from loss begins; undefined: one of which nothing is known, whose matrix leaves whole.
  void begin(const at::Tensor& loss);
  // In place of a pass that does not come.
  void begin_empty();
  // What the pass's ops::DirectGradients are to follow; this must outlive the pass.
  ops::DirectGradients::Rules rules();

  // Whether all has been added by now but what the embedding will; after a pass, that it added what
  // its graph had said, and all of it directly.
  bool is_complete_but_rows() const;
  // Then: sets the rows apart. gradients: this rank's, of all entries.
  void set_rows_apart(const at::Tensor& gradients);
  bool has_rows_apart() const { return home_.sums.defined(); }
  // Autograd has added to the matrix. Throws Error after set_rows_apart().
  void added_by_autograd();

  // The rows that this rank sets apart in this pass.
  std::vector<std::uint8_t> marks() const;
  const at::Tensor& rows() const { return rows_; }           // i64 [R], ascending
  const at::Tensor& row_sums() const { return home_.sums; }  // f32 [R, C]; undefined before

 private:
  void check_order() const;

  const std::size_t entry_;
  const FlatEntry place_;
  const at::Tensor parameter_;
  // Of the pass.
  bool known_ = false;
  std::int64_t others_ = 0;     // additions besides those of lookups, by the graph
  std::int64_t additions_ = 0;  // seen so far, to the matrix itself
  std::int64_t lookups_ = 0;    // among these
  bool by_autograd_ = false;
  at::Tensor rows_;
  ops::DirectGradients::RowHome home_;
};

}  // namespace trireme
