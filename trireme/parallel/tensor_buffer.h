// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From tensors to the buffers that comm/ carries.
//
//   at::Tensor gradients = shared_zeros(group, {count}, at::kFloat);
//   group.all_reduce(buffer_of_tensor(gradients), ReduceOp::kSum);
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include "trireme/base/dtype.h"
#include "trireme/comm/buffer.h"
#include "trireme/comm/group.h"

namespace trireme {

// Throws ShapeError for a dtype that does not travel (bool, complex, quantised).
DType dtype_of_tensor(at::ScalarType dtype);

// The tensor's memory, not a copy: the tensor must outlive the operation. Throws ShapeError unless
// it is a contiguous CPU tensor of a dtype that travels.
Buffer buffer_of_tensor(const at::Tensor& tensor);

// Zeros of the given shape, on the CPU, in memory that the group's collectives use where it is
// (Group::allocate_shared); it may outlive the group. Throws ShapeError for a dtype that does not
// travel; CommError when memory is used up. Any thread. Counted under the thread's MemoryScope.
at::Tensor shared_zeros(Group& group, at::IntArrayRef sizes, at::ScalarType dtype);

}  // namespace trireme
