// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From tensors to the buffers that comm/ carries.
//
//   group.all_reduce(buffer_of_tensor(flat.grad()), ReduceOp::kSum);
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "trireme/base/dtype.h"
#include "trireme/comm/buffer.h"

namespace trireme {

// Throws ShapeError for a dtype that does not travel (bool, complex, quantised).
DType dtype_of_tensor(at::ScalarType dtype);

// The tensor's memory, not a copy: the tensor must outlive the operation. Throws ShapeError unless
// it is a contiguous CPU tensor of a dtype that travels.
Buffer buffer_of_tensor(const at::Tensor& tensor);

}  // namespace trireme
