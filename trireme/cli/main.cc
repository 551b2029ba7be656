// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/cli/commands.h"

int main(int argc, char** argv) { return trireme::cli::run(argc, argv); }
