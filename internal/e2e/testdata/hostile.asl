// What a hostile host may hand to a guest: a table whose devices are initialised
// by the guest's own kernel, and reach for its memory on the way. What they find
// goes to the host by port 0xE9. Each device tries one thing: bytecode that is
// refused ends there.
//
// iasl -p hostile hostile.asl (acpica-tools 20200925) made hostile.aml.
DefinitionBlock ("", "SSDT", 2, "HOST", "HOSTILE", 1)
{
    Scope (\_SB)
    {
        OperationRegion (HOST, SystemIO, 0xE9, 1)
        Field (HOST, ByteAcc, NoLock, Preserve) { BYTE, 8 }

        // TELL sends a name, a number and a new line to the host.
        Method (TELL, 2, Serialized)
        {
            Concatenate (Arg0, ToHexString (Arg1), Local0)
            ToBuffer (Local0, Local1)
            Local2 = 0
            While (Local2 < SizeOf (Local0))
            {
                BYTE = DerefOf (Local1 [Local2])
                Local2++
            }
            BYTE = 0x0A
        }

        // TAKE reads four bytes of memory, writes others there and reads again.
        Method (TAKE, 2, Serialized)
        {
            TELL (Concatenate (Arg0, " reads "), Arg1)
            OperationRegion (MEMO, SystemMemory, Arg1, 4)
            Field (MEMO, DWordAcc, NoLock, Preserve) { WORD, 32 }
            Local0 = WORD
            TELL (Concatenate (Arg0, " found "), Local0)
            WORD = 0x21444142
            TELL (Concatenate (Arg0, " wrote "), WORD)
        }

        // Below 640 KiB, where the kernel leaves memory free.
        Device (BAD0) { Name (_HID, "HOST0000") Method (_INI) { TAKE ("low", 0x50000) } }

        // In the middle of it.
        Device (BAD1) { Name (_HID, "HOST0001") Method (_INI) { TAKE ("high", 0x10000000) } }

        // This table's own length, by which the region would grow.
        Device (BAD2)
        {
            Name (_HID, "HOST0002")
            DataTableRegion (SELF, "SSDT", "HOST", "HOSTILE")
            Field (SELF, AnyAcc, NoLock, Preserve) { , 32, SIZE, 32 }
            Method (_INI)
            {
                TELL ("table reads ", 4)
                TELL ("table found ", SIZE)
                SIZE = 0x7FFFFFFF
                TELL ("table wrote ", SIZE)
            }
        }

        // The version of the I/O APIC, no memory: what a device may ask for.
        Device (GOOD)
        {
            Name (_HID, "HOST0003")
            OperationRegion (APIC, SystemMemory, 0xFEC00000, 0x20)
            Field (APIC, DWordAcc, NoLock, Preserve) { INDX, 32, Offset (0x10), DATA, 32 }
            Method (_INI)
            {
                TELL ("device reads ", 0xFEC00000)
                INDX = 1
                TELL ("device found ", DATA)
            }
        }
    }
}
