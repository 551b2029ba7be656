// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From the arguments of Group's functions to collectives: every check that needs no other rank.
// Each throws ShapeError for arguments that cannot be.
#pragma once

#include <span>

#include "trireme/comm/collective.h"

namespace trireme::detail {

// Who asks, for messages and for the shape of vectors of blocks.
struct Caller {
  int rank = 0;
  int size = 1;
};

Collective all_reduce_of(const Buffer& data, ReduceOp op);
Collective reduce_scatter_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                             ReduceOp op, Counts counts);
Collective all_gather_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                         Counts counts);
Collective broadcast_of(const Caller& caller, const Buffer& data, int root);
Collective reduce_of(const Caller& caller, const Buffer& data, int root, ReduceOp op);
Collective gather_of(const Caller& caller, const ConstBuffer& input, const Buffer& output, int root,
                     Counts counts);
Collective scatter_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                      int root, Counts counts);
Collective all_to_all_of(const Caller& caller, const ConstBuffer& input, const Buffer& output);
Collective all_to_all_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                         Counts send_counts, Counts receive_counts);
Collective barrier_of();

void check_message(const Caller& caller, const char* what, const ConstBuffer& data, int peer,
                   int tag);
// All of one dtype and in one memory.
void check_coalesced(const char* what, std::span<const Buffer> buffers);

}  // namespace trireme::detail
