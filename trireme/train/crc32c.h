// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// CRC-32C (Castagnoli), as in RFC 3720, appendix B.4: polynomial 0x1EDC6F41, reflected.
#pragma once

#include <cstdint>
#include <string_view>

namespace trireme {

std::uint32_t crc32c(std::string_view bytes);

}  // namespace trireme
