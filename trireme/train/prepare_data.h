// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// data/corpus.h with a progress bar and a report for people: what `trireme train` and `trireme
// tokenize` share.
#pragma once

#include "trireme/data/corpus.h"

namespace trireme {

// prepare_tokens() with a progress bar on stderr.
PrepareReport prepare_with_progress(const PrepareOptions& options);

// Logs what was read and what was skipped, with the reasons.
void report_preparation(const PrepareOptions& options, const PrepareReport& report);

}  // namespace trireme
