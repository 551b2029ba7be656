// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/cuda/device_scope.h"

#include <c10/cuda/CUDAStream.h>

namespace trireme::ops::cuda {

DeviceScope::DeviceScope(c10::Device device)
    : guard_(device), stream_{c10::cuda::getCurrentCUDAStream(device.index()).stream()} {}

}  // namespace trireme::ops::cuda
