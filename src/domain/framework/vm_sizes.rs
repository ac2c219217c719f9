//! The table of VM sizes that a one-off target may have.

use serde::Serialize;
use utoipa::ToSchema;

/// One size of virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct VmSize {
    /// Azure's name for it, in upper case; it is matched in any case of letters.
    #[schema(example = "STANDARD_D2_V2")]
    pub name: &'static str,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// GPUs.
    pub gpus: u32,
}

const fn size(name: &'static str, vcpus: u32, memory_mib: u32, gpus: u32) -> VmSize {
    VmSize { name, vcpus, memory_mib, gpus }
}

/// The size of that name, in any case of letters.
#[must_use]
pub fn vm_size(name: &str) -> Option<&'static VmSize> {
    VM_SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name))
}

/// The common families: general purpose, memory, compute, HPC, GPU.
pub static VM_SIZES: &[VmSize] = &[
    size("STANDARD_A1_V2", 1, 2048, 0),
    size("STANDARD_A2_V2", 2, 4096, 0),
    size("STANDARD_A4_V2", 4, 8192, 0),
    size("STANDARD_A8_V2", 8, 16384, 0),
    size("STANDARD_A2M_V2", 2, 16384, 0),
    size("STANDARD_A4M_V2", 4, 32768, 0),
    size("STANDARD_A8M_V2", 8, 65536, 0),
    size("STANDARD_B1S", 1, 1024, 0),
    size("STANDARD_B1MS", 1, 2048, 0),
    size("STANDARD_B2S", 2, 4096, 0),
    size("STANDARD_B2MS", 2, 8192, 0),
    size("STANDARD_B4MS", 4, 16384, 0),
    size("STANDARD_B8MS", 8, 32768, 0),
    size("STANDARD_D1", 1, 3584, 0),
    size("STANDARD_D2", 2, 7168, 0),
    size("STANDARD_D3", 4, 14336, 0),
    size("STANDARD_D4", 8, 28672, 0),
    size("STANDARD_D11", 2, 14336, 0),
    size("STANDARD_D12", 4, 28672, 0),
    size("STANDARD_D13", 8, 57344, 0),
    size("STANDARD_D14", 16, 114688, 0),
    size("STANDARD_D1_V2", 1, 3584, 0),
    size("STANDARD_D2_V2", 2, 7168, 0),
    size("STANDARD_D3_V2", 4, 14336, 0),
    size("STANDARD_D4_V2", 8, 28672, 0),
    size("STANDARD_D5_V2", 16, 57344, 0),
    size("STANDARD_D11_V2", 2, 14336, 0),
    size("STANDARD_D12_V2", 4, 28672, 0),
    size("STANDARD_D13_V2", 8, 57344, 0),
    size("STANDARD_D14_V2", 16, 114688, 0),
    size("STANDARD_D15_V2", 20, 143360, 0),
    size("STANDARD_DS1_V2", 1, 3584, 0),
    size("STANDARD_DS2_V2", 2, 7168, 0),
    size("STANDARD_DS3_V2", 4, 14336, 0),
    size("STANDARD_DS4_V2", 8, 28672, 0),
    size("STANDARD_DS5_V2", 16, 57344, 0),
    size("STANDARD_DS11_V2", 2, 14336, 0),
    size("STANDARD_DS12_V2", 4, 28672, 0),
    size("STANDARD_DS13_V2", 8, 57344, 0),
    size("STANDARD_DS14_V2", 16, 114688, 0),
    size("STANDARD_DS15_V2", 20, 143360, 0),
    size("STANDARD_D2_V3", 2, 8192, 0),
    size("STANDARD_D4_V3", 4, 16384, 0),
    size("STANDARD_D8_V3", 8, 32768, 0),
    size("STANDARD_D16_V3", 16, 65536, 0),
    size("STANDARD_D32_V3", 32, 131072, 0),
    size("STANDARD_D48_V3", 48, 196608, 0),
    size("STANDARD_D64_V3", 64, 262144, 0),
    size("STANDARD_D2S_V3", 2, 8192, 0),
    size("STANDARD_D4S_V3", 4, 16384, 0),
    size("STANDARD_D8S_V3", 8, 32768, 0),
    size("STANDARD_D16S_V3", 16, 65536, 0),
    size("STANDARD_D32S_V3", 32, 131072, 0),
    size("STANDARD_D48S_V3", 48, 196608, 0),
    size("STANDARD_D64S_V3", 64, 262144, 0),
    size("STANDARD_D2_V4", 2, 8192, 0),
    size("STANDARD_D4_V4", 4, 16384, 0),
    size("STANDARD_D8_V4", 8, 32768, 0),
    size("STANDARD_D16_V4", 16, 65536, 0),
    size("STANDARD_D32_V4", 32, 131072, 0),
    size("STANDARD_D48_V4", 48, 196608, 0),
    size("STANDARD_D64_V4", 64, 262144, 0),
    size("STANDARD_D2S_V4", 2, 8192, 0),
    size("STANDARD_D4S_V4", 4, 16384, 0),
    size("STANDARD_D8S_V4", 8, 32768, 0),
    size("STANDARD_D16S_V4", 16, 65536, 0),
    size("STANDARD_D32S_V4", 32, 131072, 0),
    size("STANDARD_D48S_V4", 48, 196608, 0),
    size("STANDARD_D64S_V4", 64, 262144, 0),
    size("STANDARD_D2DS_V4", 2, 8192, 0),
    size("STANDARD_D4DS_V4", 4, 16384, 0),
    size("STANDARD_D8DS_V4", 8, 32768, 0),
    size("STANDARD_D16DS_V4", 16, 65536, 0),
    size("STANDARD_D32DS_V4", 32, 131072, 0),
    size("STANDARD_D48DS_V4", 48, 196608, 0),
    size("STANDARD_D64DS_V4", 64, 262144, 0),
    size("STANDARD_D2_V5", 2, 8192, 0),
    size("STANDARD_D4_V5", 4, 16384, 0),
    size("STANDARD_D8_V5", 8, 32768, 0),
    size("STANDARD_D16_V5", 16, 65536, 0),
    size("STANDARD_D32_V5", 32, 131072, 0),
    size("STANDARD_D48_V5", 48, 196608, 0),
    size("STANDARD_D64_V5", 64, 262144, 0),
    size("STANDARD_D2S_V5", 2, 8192, 0),
    size("STANDARD_D4S_V5", 4, 16384, 0),
    size("STANDARD_D8S_V5", 8, 32768, 0),
    size("STANDARD_D16S_V5", 16, 65536, 0),
    size("STANDARD_D32S_V5", 32, 131072, 0),
    size("STANDARD_D48S_V5", 48, 196608, 0),
    size("STANDARD_D64S_V5", 64, 262144, 0),
    size("STANDARD_E2_V3", 2, 16384, 0),
    size("STANDARD_E4_V3", 4, 32768, 0),
    size("STANDARD_E8_V3", 8, 65536, 0),
    size("STANDARD_E16_V3", 16, 131072, 0),
    size("STANDARD_E20_V3", 20, 163840, 0),
    size("STANDARD_E32_V3", 32, 262144, 0),
    size("STANDARD_E48_V3", 48, 393216, 0),
    size("STANDARD_E64_V3", 64, 442368, 0),
    size("STANDARD_E2S_V3", 2, 16384, 0),
    size("STANDARD_E4S_V3", 4, 32768, 0),
    size("STANDARD_E8S_V3", 8, 65536, 0),
    size("STANDARD_E16S_V3", 16, 131072, 0),
    size("STANDARD_E20S_V3", 20, 163840, 0),
    size("STANDARD_E32S_V3", 32, 262144, 0),
    size("STANDARD_E48S_V3", 48, 393216, 0),
    size("STANDARD_E64S_V3", 64, 442368, 0),
    size("STANDARD_E2S_V4", 2, 16384, 0),
    size("STANDARD_E4S_V4", 4, 32768, 0),
    size("STANDARD_E8S_V4", 8, 65536, 0),
    size("STANDARD_E16S_V4", 16, 131072, 0),
    size("STANDARD_E20S_V4", 20, 163840, 0),
    size("STANDARD_E32S_V4", 32, 262144, 0),
    size("STANDARD_E48S_V4", 48, 393216, 0),
    size("STANDARD_E64S_V4", 64, 516096, 0),
    size("STANDARD_E2S_V5", 2, 16384, 0),
    size("STANDARD_E4S_V5", 4, 32768, 0),
    size("STANDARD_E8S_V5", 8, 65536, 0),
    size("STANDARD_E16S_V5", 16, 131072, 0),
    size("STANDARD_E20S_V5", 20, 163840, 0),
    size("STANDARD_E32S_V5", 32, 262144, 0),
    size("STANDARD_E48S_V5", 48, 393216, 0),
    size("STANDARD_E64S_V5", 64, 524288, 0),
    size("STANDARD_F1", 1, 2048, 0),
    size("STANDARD_F2", 2, 4096, 0),
    size("STANDARD_F4", 4, 8192, 0),
    size("STANDARD_F8", 8, 16384, 0),
    size("STANDARD_F16", 16, 32768, 0),
    size("STANDARD_F1S", 1, 2048, 0),
    size("STANDARD_F2S", 2, 4096, 0),
    size("STANDARD_F4S", 4, 8192, 0),
    size("STANDARD_F8S", 8, 16384, 0),
    size("STANDARD_F16S", 16, 32768, 0),
    size("STANDARD_F2S_V2", 2, 4096, 0),
    size("STANDARD_F4S_V2", 4, 8192, 0),
    size("STANDARD_F8S_V2", 8, 16384, 0),
    size("STANDARD_F16S_V2", 16, 32768, 0),
    size("STANDARD_F32S_V2", 32, 65536, 0),
    size("STANDARD_F48S_V2", 48, 98304, 0),
    size("STANDARD_F64S_V2", 64, 131072, 0),
    size("STANDARD_F72S_V2", 72, 147456, 0),
    size("STANDARD_H8", 8, 57344, 0),
    size("STANDARD_H16", 16, 114688, 0),
    size("STANDARD_H16R", 16, 114688, 0),
    size("STANDARD_HB60RS", 60, 233472, 0),
    size("STANDARD_HC44RS", 44, 360448, 0),
    size("STANDARD_HB120RS_V2", 120, 466944, 0),
    size("STANDARD_HB120RS_V3", 120, 458752, 0),
    size("STANDARD_M64S", 64, 1048576, 0),
    size("STANDARD_M64MS", 64, 1835008, 0),
    size("STANDARD_M128S", 128, 2097152, 0),
    size("STANDARD_NC6", 6, 57344, 1),
    size("STANDARD_NC12", 12, 114688, 2),
    size("STANDARD_NC24", 24, 229376, 4),
    size("STANDARD_NC24R", 24, 229376, 4),
    size("STANDARD_NC6S_V2", 6, 114688, 1),
    size("STANDARD_NC12S_V2", 12, 229376, 2),
    size("STANDARD_NC24S_V2", 24, 458752, 4),
    size("STANDARD_NC24RS_V2", 24, 458752, 4),
    size("STANDARD_NC6S_V3", 6, 114688, 1),
    size("STANDARD_NC12S_V3", 12, 229376, 2),
    size("STANDARD_NC24S_V3", 24, 458752, 4),
    size("STANDARD_NC24RS_V3", 24, 458752, 4),
    size("STANDARD_NC4AS_T4_V3", 4, 28672, 1),
    size("STANDARD_NC8AS_T4_V3", 8, 57344, 1),
    size("STANDARD_NC16AS_T4_V3", 16, 112640, 1),
    size("STANDARD_NC64AS_T4_V3", 64, 450560, 4),
    size("STANDARD_NC24ADS_A100_V4", 24, 225280, 1),
    size("STANDARD_NC48ADS_A100_V4", 48, 450560, 2),
    size("STANDARD_NC96ADS_A100_V4", 96, 901120, 4),
    size("STANDARD_ND6S", 6, 114688, 1),
    size("STANDARD_ND12S", 12, 229376, 2),
    size("STANDARD_ND24S", 24, 458752, 4),
    size("STANDARD_ND24RS", 24, 458752, 4),
    size("STANDARD_ND40RS_V2", 40, 688128, 8),
    size("STANDARD_ND96ASR_V4", 96, 921600, 8),
    size("STANDARD_ND96AMSR_A100_V4", 96, 1945600, 8),
    size("STANDARD_NV6", 6, 57344, 1),
    size("STANDARD_NV12", 12, 114688, 2),
    size("STANDARD_NV24", 24, 229376, 4),
    size("STANDARD_NV12S_V3", 12, 114688, 1),
    size("STANDARD_NV24S_V3", 24, 229376, 2),
    size("STANDARD_NV48S_V3", 48, 458752, 4),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_in_any_case_and_not_trimmed() {
        assert_eq!(vm_size("Standard_D2_v2").map(|s| (s.vcpus, s.memory_mib, s.gpus)), Some((2, 7168, 0)));
        assert_eq!(vm_size("STANDARD_NC6").map(|s| s.gpus), Some(1));
        assert_eq!(vm_size("STANDARD_D2_V2 "), None);
    }

    #[test]
    fn no_name_comes_twice() {
        let mut names: Vec<_> = VM_SIZES.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), VM_SIZES.len());
    }
}
