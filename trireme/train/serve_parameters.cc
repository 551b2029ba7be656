// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/serve_parameters.h"

#include <fmt/format.h>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {

int serve_parameters(const ServeParametersOptions& options) {
  const bool server = options.role == JobRole::kServer;
  throw_error<Error>("this build has no parameter server: {} of the job at {} cannot run",
                     server ? fmt::format("server {}", options.job.index) : "the coordinator",
                     endpoint_text(options.job.address, options.job.port));
}

}  // namespace trireme
