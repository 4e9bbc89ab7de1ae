"""cupsd, and printers, as they are asked: IPP, its operations, and what the answers say."""
