module defib.dev/differential

go 1.22
